"""The shipped configuration of Envoy, and what is changed of it to measure."""

from proxy import as_shipped, bare, configured, impatient


def test_only_addresses_differ_from_what_is_shipped() -> None:
    """The replicas are named; balancing, checks, ejection and retries stay."""
    config = configured(["127.0.0.1:1", "127.0.0.1:2"], 3, 4, as_shipped)
    (cluster,) = config["static_resources"]["clusters"]
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    ports = [each["endpoint"]["address"]["socket_address"]["port_value"] for each in endpoints["lb_endpoints"]]
    assert (cluster["type"], ports, cluster["lb_policy"]) == ("STATIC", [1, 2], "LEAST_REQUEST")
    assert {"health_checks", "outlier_detection"} <= set(cluster)


def test_failures_eject_a_replica() -> None:
    """Envoy only counts gateway failures unless it is told to enforce what follows from them."""
    (cluster,) = configured(["127.0.0.1:1"], 3, 4, as_shipped)["static_resources"]["clusters"]
    assert cluster["outlier_detection"]["enforcing_consecutive_gateway_failure"] == 100


def test_a_change_changes_what_it_says() -> None:
    """Without anything that helps; and with a limit for each try, in the route's retries."""
    (cluster,) = configured(["127.0.0.1:1"], 3, 4, bare)["static_resources"]["clusters"]
    assert not {"health_checks", "outlier_detection"} & set(cluster)
    (listener,) = configured(["127.0.0.1:1"], 3, 4, impatient(0.2))["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    route = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert route["retry_policy"]["per_try_timeout"] == "0.2s"
