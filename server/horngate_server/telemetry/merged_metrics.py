"""Several workers' pages of metrics put together into one."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from horngate_server.telemetry.metrics import REFUSED, counter


def merged(texts: Mapping[str, str], restarts: Mapping[tuple[str, str], int], refused: Mapping[str, int]) -> bytes:
    """Show several workers' metrics as one page: every sample gets a ``worker`` label.

    They are not added up here: a sum falls when a worker is replaced, and rates over it would be wrong.

    Args:
        texts: per worker, its own page; empty while it has none.
        restarts: per worker and reason, how often it was replaced.
        refused: what was refused before it came to a worker, by reason.
    """
    registry = CollectorRegistry()
    registry.register(_Merged(texts, restarts, refused))
    return generate_latest(registry)


# --- private ------------------------------------------------------------------------------------------


class _Merged(Collector):
    """Families of several pages, put together by name."""

    def __init__(
        self, texts: Mapping[str, str], restarts: Mapping[tuple[str, str], int], refused: Mapping[str, int]
    ) -> None:
        self._texts = texts
        self._restarts = restarts
        self._refused = refused

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("horngate_worker_up", "1 while a worker answers.", labels=("worker",))
        families: dict[str, Metric] = {}
        for worker, text in self._texts.items():
            up.add_metric((worker,), bool(text))
            for family in text_string_to_metric_families(text):
                whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.samples.append(sample._replace(labels={**sample.labels, "worker": worker}))
        for reason, count in self._refused.items():
            family = families.setdefault("horngate_refused", Metric("horngate_refused", REFUSED, "counter"))
            family.add_sample("horngate_refused_total", {"reason": reason, "worker": "supervisor"}, count)
        yield up
        yield counter(
            "horngate_worker_restarts", "Workers that were replaced, by why.", ("worker", "reason"), self._restarts,
        )  # fmt: skip
        yield from families.values()
