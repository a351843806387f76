"""A loaded version as the request path sees it, and the table of all of them."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from horngate_server.admission import Plan, plan
from horngate_server.errors import ModelNotFound, NotReady
from horngate_server.executor import Executor
from horngate_server.request import Header, ModelInfo


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One version that takes requests.

    Attributes:
        info: name, version, signature.
        executor: computes for it.
        platform: what the metadata says it is.
    """

    info: ModelInfo
    executor: Executor
    platform: str = "tensorflow_savedmodel"
    _plans: "_Plans" = field(init=False)

    def __post_init__(self) -> None:
        plans = _Plans(self.info, self.executor.capacity_rows)
        object.__setattr__(self, "_plans", plans)

    def plan(self, header: Header) -> Plan:
        """Check a header against the signature; remembered per header, since callers repeat theirs.

        Raises:
            InvalidRequest: it does not fit.
        """
        return self._plans.of(header)


class Models:
    """Which version answers for a name. Reading takes no lock: a change puts a new table in place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: Mapping[str, Served] = MappingProxyType({})
        self._expected: frozenset[str] = frozenset()

    def expect(self, names: Iterable[str]) -> None:
        """Say which models are on their way: until then they are not ready rather than unknown."""
        self._expected = frozenset(names)

    def put(self, served: Served) -> None:
        """Make this version the one that serves under its name."""
        with self._lock:
            self._latest = MappingProxyType({**self._latest, served.info.name: served})

    def __iter__(self) -> Iterator[Served]:
        return iter(self._latest.values())

    def get(self, name: str, version: str = "") -> Served:
        """Return the version that serves, or the one asked for.

        Raises:
            ModelNotFound: what is served instead.
            NotReady: it is still loading.
        """
        served = self._latest.get(name)
        if served is None:
            if name in self._expected:
                raise NotReady(f"model {name!r} is loading")
            raise ModelNotFound(f"no model {name!r}; expected one of {sorted(self._latest)}")
        if version and version != served.info.version:
            raise ModelNotFound(f"model {name!r} has no version {version!r}; it serves version {served.info.version!r}")
        return served


# --- private ------------------------------------------------------------------------------------------


class _Plans:
    """Plans by header object: a header that a protocol remembers is checked once."""

    def __init__(self, info: ModelInfo, max_rows: int) -> None:
        self.of = lru_cache(maxsize=512)(lambda header: plan(header, info.signature, max_rows))
