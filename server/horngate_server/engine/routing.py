"""A loaded version as the request path sees it, and the table of all of them."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from horngate_server.core.errors import LabelNotFound, ModelNotFound, NotReady, SignatureNotFound
from horngate_server.core.inference import Header, ModelInfo
from horngate_server.core.model import Array
from horngate_server.engine.executor import Executor
from horngate_server.engine.validation import Plan, plan


@dataclass(frozen=True, slots=True, eq=False)
class Servable:
    """One version that takes requests.

    Attributes:
        info: name, version, signature.
        executor: computes for it.
        infos: by signature, the same but for that; only ``info`` where there are no others.
        device: "CPU" or "GPU".
        engine: what computes the default signature: "tensorflow" or "litert".
        recorded: requests for it that its maker recorded, each its inputs by name; for callers who ask.
    """

    info: ModelInfo
    executor: Executor
    infos: Mapping[str, ModelInfo] = field(default_factory=dict)
    device: str = "CPU"
    engine: str = "tensorflow"
    recorded: Sequence[Mapping[str, Array]] = ()
    _plans: "_Plans" = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "infos", self.infos or {self.info.signature.name: self.info})
        object.__setattr__(self, "_plans", _Plans(self))

    def plan(self, header: Header) -> Plan:
        """Check a header against its signature; remembered per header, since callers repeat theirs.

        Raises:
            InvalidRequest: it does not fit.
            SignatureNotFound: there is no such signature.
        """
        return self._plans.of(header)

    def signature(self, name: str) -> ModelInfo:
        """Return what answers for a signature; the default one's for none.

        Raises:
            SignatureNotFound: there is no such signature.
        """
        if not name:
            return self.info
        info = self.infos.get(name)
        if info is None:
            raise SignatureNotFound(
                f"model {self.info.name!r} has no signature {name!r}; it has {', '.join(sorted(self.infos))}"
            )
        return info


class Models:
    """Which version answers whom. Reading takes no lock: a change puts a whole new table in place.

    Args:
        starting: nobody knows yet which models there are: until `expect` says so, none is unknown.
    """

    def __init__(self, *, starting: bool = False) -> None:
        self._lock = threading.Lock()
        self._starting = starting
        self._table: Mapping[tuple[str, str], Servable] = MappingProxyType({})
        self._expected: Mapping[str, str] = MappingProxyType({})

    def expect(self, models: Mapping[str, str]) -> None:
        """Say which models are known, and what keeps them from serving if they do not: not ready, but not unknown."""
        self._expected = MappingProxyType(dict(models))
        self._starting = False

    def route(
        self,
        name: str,
        default: Servable | None,
        versions: Iterable[Servable] = (),
        labels: Mapping[str, Servable] = MappingProxyType({}),
    ) -> None:
        """Say who answers for a model from now on, all at once: a request sees the table before or after.

        Args:
            name: the model's.
            default: for callers that name no version; None for nobody, which takes the model out.
            versions: those that callers may name by number.
            labels: those that callers may name by label.
        """
        with self._lock:
            table = {key: served for key, served in self._table.items() if key[0] != name}
            if default is not None:
                table[name, ""] = default
                table |= {(name, label): served for label, served in labels.items()}
                table |= {(name, served.info.version): served for served in (default, *versions)}
            self._table = MappingProxyType(table)

    def __iter__(self) -> Iterator[Servable]:
        """Every version that answers, once."""
        return iter(dict.fromkeys(self._table.values()))

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that callers may name, ascending."""
        numbers = {served.info.version for (model, _), served in self._table.items() if model == name}
        return sorted(numbers, key=int)

    def get(self, name: str, version: str = "") -> Servable:
        """Return the version that answers by default, or the one asked for by number or label.

        Raises:
            ModelNotFound: what is served instead.
            NotReady: it is still loading.
        """
        served = self._table.get((name, version))
        if served is None:
            raise self._missing(name, version)
        return served

    def _missing(self, name: str, version: str) -> ModelNotFound | NotReady:
        if (name, "") in self._table:
            labels = sorted(key[1] for key in self._table if key[0] == name and key[1] and not key[1].isdecimal())
            known = f"versions {', '.join(self.versions(name))}" + (f", labels {', '.join(labels)}" if labels else "")
            missing = ModelNotFound if version.isdecimal() else LabelNotFound
            return missing(f"model {name!r} has no version {version!r}; it serves {known}")
        if name in self._expected:
            reason = self._expected[name]
            return NotReady(f"model {name!r} " + (f"cannot be served: {reason}" if reason else "is loading"))
        if self._starting:
            return NotReady(f"the server is starting, and does not know yet whether it has a model {name!r}")
        return ModelNotFound(f"no model {name!r}; expected one of {sorted({key[0] for key in self._table})}")


# --- private ------------------------------------------------------------------------------------------


class _Plans:
    """Plans by header object: a header that a protocol remembers is checked once."""

    def __init__(self, served: Servable) -> None:
        max_rows = served.executor.capacity_rows

        def planned(header: Header) -> Plan:
            info = served.signature(header.signature)
            header.check(info.signature)
            return plan(header, info, max_rows)

        self.of = lru_cache(maxsize=512)(planned)
