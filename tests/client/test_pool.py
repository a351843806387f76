"""Which address is chosen, on a clock that the test owns."""

import threading

from horngate_client.names import Names
from horngate_client.pool import Pool


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pool(*addresses: str, clock: Clock) -> Pool:
    """Make one without chance."""
    return Pool(addresses, clock=clock, random=lambda: 0.0)


def taken(addresses: Pool, count: int) -> list[str]:
    """Ask so many times, each answered at once."""
    found = []
    for _ in range(count):
        found.append(addresses.take())
        addresses.answered(found[-1], 0.001)
    return found


def test_addresses_are_asked_in_turn_and_none_gets_more_than_another_at_a_time() -> None:
    """One that does not answer collects no more requests than its neighbours have."""
    addresses = pool("a", "b", clock=Clock())
    assert taken(addresses, 4) == ["a", "b", "a", "b"]
    assert addresses.take() == "a"
    assert taken(addresses, 3) == ["b", "b", "b"]


def test_an_address_that_failed_is_left_out_until_a_probe_and_an_answer() -> None:
    """Then it gets one request at a time, until it has answered one."""
    clock = Clock()
    addresses = pool("a", "b", clock=clock)
    assert addresses.take() == "a"
    addresses.failed("a", suspected=False)
    assert taken(addresses, 3) == ["b"] * 3
    assert addresses.due_probes() == ()
    clock.now += 0.5
    assert addresses.due_probes() == ("a",)
    assert addresses.due_probes() == ()
    addresses.probed("a", ready=True)
    found = [addresses.take() for _ in range(4)]
    assert found.count("a") == 1
    addresses.answered("a", 0.001)
    assert addresses.take() == "a"


def test_ejections_double_up_to_half_a_minute_and_a_good_answer_forgets_them() -> None:
    """A dead address is probed ever less often."""
    clock = Clock()
    addresses = Pool(["a", "b"], clock=clock, random=lambda: 1.0 - 2**-53)
    while addresses.take() != "a":
        pass
    addresses.failed("a", suspected=False)
    for seconds in (0.5, 1, 2, 4, 8, 16, 30, 30):
        clock.now += seconds * 0.99
        assert addresses.due_probes() == (), seconds
        clock.now += seconds * 0.02
        assert addresses.due_probes() == ("a",), seconds
        addresses.probed("a", ready=False)


def test_a_late_answer_is_suspected_only_and_probed_at_once() -> None:
    """It may be the model that is slow."""
    addresses = pool("a", "b", clock=Clock())
    addresses.take()
    addresses.failed("a", suspected=True)
    assert addresses.due_probes() == ("a",)


def test_many_requests_that_fail_together_are_one_failure() -> None:
    """The ejection does not become long because many were in flight."""
    clock = Clock()
    addresses = pool("a", "b", clock=clock)
    for _ in range(40):
        addresses.take()
    for _ in range(20):
        addresses.failed("a", suspected=False)
    clock.now += 0.5
    assert addresses.due_probes() == ("a",)


def test_where_all_failed_all_are_used() -> None:
    """Those first that this request has not tried."""
    addresses = pool("a", "b", clock=Clock())
    for address in ("a", "b"):
        addresses.take()
        addresses.failed(address, suspected=False)
    assert addresses.take(["a"]) == "b"
    assert addresses.take(["b"]) == "a"


def test_a_slow_model_is_not_cut_off() -> None:
    """An attempt gets three times what the slowest of the latest answers took."""
    addresses = pool("a", "b", clock=Clock())
    assert addresses.attempt_seconds(9.0, 1 / 3) == 3.0
    addresses.take()
    addresses.answered("a", 2.0)
    assert addresses.attempt_seconds(9.0, 1 / 3) == 6.0
    assert addresses.attempt_seconds(5.0, 1 / 3) == 5.0
    assert addresses.attempt_seconds(0.1, 1 / 3) == 0.1


def test_new_addresses_join_and_old_ones_keep_their_health() -> None:
    """An answer from one that is gone is no error."""
    clock = Clock()
    addresses = pool("a", "b", clock=clock)
    addresses.take()
    addresses.take()
    addresses.failed("a", suspected=False)
    addresses.replace(["a", "c"])
    addresses.answered("b", 0.001)
    assert set(taken(addresses, 4)) == {"c"}


def names(clock: Clock, answers: list[object]) -> tuple[Names, threading.Semaphore]:
    """Make a client's names; each look-up takes the next answer, or raises it."""
    done = threading.Semaphore(0)

    def resolve(host: str, port: int) -> list[str]:
        assert host == "models.test"
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [f"{address}:{port}" for address in answer]  # type: ignore[attr-defined] # the other case

    servers = ["models.test:8001", "10.9.9.9:1", "localhost:2", "[::1]:3", "dns:///x:4"]
    return Names(servers, resolve=resolve, clock=clock, found=done.release), done


def test_only_names_are_looked_up_and_again_after_ten_seconds_or_a_failure() -> None:
    """Addresses, this machine and gRPC's own targets stay as they are."""
    clock = Clock()
    fixed = ("10.9.9.9:1", "localhost:2", "[::1]:3", "dns:///x:4")
    found, _ = names(clock, [["10.0.0.1"], ["10.0.0.1", "10.0.0.2"]])
    assert found.addresses == fixed
    first = found.look_up(older_than=10)
    assert first is not None
    assert first.result(10) == ("10.0.0.1:8001", *fixed)
    assert found.name_of("10.0.0.1:8001") == "models.test:8001"
    assert found.name_of("10.9.9.9:1") is None
    clock.now += 2
    assert found.look_up(older_than=10) is None
    again = found.look_up(older_than=1)
    assert again is not None
    assert again.result(10) == ("10.0.0.1:8001", "10.0.0.2:8001", *fixed)


def test_what_was_known_stays_while_dns_fails() -> None:
    """An outage of DNS is none of the models."""
    clock = Clock()
    found, _ = names(clock, [["10.0.0.1"], OSError("no DNS"), []])
    for _ in range(3):
        looking = found.look_up(older_than=0)
        assert looking is not None
        assert looking.result(10)[0] == "10.0.0.1:8001"
