"""The file ``--config``: which versions of a model are served, under which labels, and within which limits.

    [models.mnist]
    latest = 2                               # the newest N (default 1); or versions = "all", or versions = [3, 5]
    labels = { stable = 3, canary = 4 }      # names that callers may ask for; without a name they get stable
    shadow = { version = 5, share = 0.1 }    # computed beside stable for a share of the batches, never answered with
                                             # { engine = "litert" }: the same version, by the other engine
    any_signature = true                     # let a version with other inputs or outputs take over: callers may break
    engine = "litert"                        # what computes it: as --engine
    batching = "whole"                       # one request, one run; "rows": requests share runs; "auto" finds out
    lengths = "padded"                       # the shorter requests of a run are filled up; "apart": only those of one
                                             # length share runs; "auto" finds out
    signature = "predict"                    # answers callers who name none; default: serving_default, or the only one
    tags = ["serve", "gpu"]                  # of the MetaGraph to load; default: ["serve"]
    max_batch_rows = 256                     # these five: as the flags, for this model
    queue_rows = 4096
    max_queue_delay = "2ms"
    target_batch_time = "20ms"
    model_memory = "800MB"                   # or a share, "25%"

A model that the file does not name has the defaults: its newest version.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from horngate_server.core import parsing
from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import BATCHING, ENGINES, LENGTHS, LITERT, TENSORFLOW, Limits, Settings

STABLE = "stable"
"""The label whose version answers those who ask for none."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What an operator wants of one model.

    Attributes:
        limits: of its batches and its queue.
        latest: how many of the newest versions are served, where ``versions`` does not say which.
        versions: exactly these; None for the newest ones; empty for all.
        labels: name to version.
        shadow: the version that computes along; None for none.
        shadow_share: of the batches that it computes, 0 to 1.
        any_signature: a version may take over that the callers of the one before cannot be answered by.
    """

    limits: Limits
    latest: int = 1
    versions: frozenset[int] | None = None
    labels: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    shadow: int | None = None
    shadow_share: float = 0.1
    any_signature: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file.

    Attributes:
        default: for models that it does not name.
        models: by name.
    """

    default: ModelConfig
    models: Mapping[str, ModelConfig] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, name: str) -> ModelConfig:
        """Return what is wanted of a model."""
        return self.models.get(name, self.default)


def read(path: Path | None, settings: Settings) -> Config:
    """Read the file; without one, everything is as the flags say.

    Raises:
        SettingsError: it cannot be read, or is wrong; the message says where, what was expected and what came.
    """
    default = ModelConfig(settings.limits)
    if path is None:
        return Config(default)
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: {error}") from error
    at = _Place(path, (), content)
    at.only("models")
    models = at.table("models")
    return Config(default, MappingProxyType({name: _model(models.table(name), settings) for name in models.content}))


# --- private ------------------------------------------------------------------------------------------

_Value = TypeVar("_Value")


class _Place:
    """A table of the file, and where it is."""

    def __init__(self, path: Path, keys: tuple[str, ...], content: Mapping[str, Any]) -> None:
        self.content = content
        self._path = path
        self._keys = keys

    def wrong(self, key: str, expected: str) -> SettingsError:
        came = f", came {self.content[key]!r}" if key in self.content else ""
        return SettingsError(f"--config {self._name(key)}: expected {expected}{came}")

    def only(self, *known: str) -> None:
        for key in self.content:
            if key not in known:
                raise SettingsError(f"--config {self._name(key)}: no such key; expected one of {', '.join(known)}")

    def table(self, key: str) -> "_Place":
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a table")
        return _Place(self._path, (*self._keys, key), value)

    def whole(self, key: str, default: int) -> int:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(key, "a whole number above 0")
        return value

    def parsed(self, key: str, parse: Callable[[str], _Value], default: _Value) -> _Value:
        """Return what a key's value means, written as after the flag of its name."""
        if key not in self.content:
            return default
        try:
            return parse(str(self.content[key]))
        except ValueError as error:
            raise self.wrong(key, str(error).removeprefix("expected ")) from error

    def text(self, key: str) -> str:
        """Return a key's words; empty where there is no such key."""
        value = self.content.get(key, "")
        if not isinstance(value, str) or (key in self.content and not value):
            raise self.wrong(key, "a name")
        return value

    def _name(self, key: str) -> str:
        return f"{self._path}: {'.'.join((*self._keys, key))}"


def _model(at: _Place, settings: Settings) -> ModelConfig:
    at.only(
        "latest", "versions", "labels", "shadow", "any_signature", "engine", "batching", "lengths", "signature",
        "tags", "max_batch_rows", "queue_rows", "max_queue_delay", "target_batch_time", "model_memory",
    )  # fmt: skip
    versions = at.content.get("versions")
    if versions is not None and "latest" in at.content:
        raise at.wrong("versions", "either latest or versions, not both")
    if (
        versions is not None
        and versions != "all"
        and not (isinstance(versions, list) and all(map(_is_version, versions)))
    ):
        raise at.wrong("versions", '"all" or a list of versions such as [3, 5]')
    if versions == []:
        raise at.wrong("versions", "at least one version; RepositoryModelUnload stops serving a model")
    labels = at.table("labels")
    for label in labels.content:
        if label.isdecimal() or not label:
            raise labels.wrong(label, "a label that is no number: numbers are versions")
        labels.whole(label, 1)
    shadow = at.table("shadow")
    shadow.only("version", "engine", "share")
    share = shadow.content.get("share", 0.1)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise shadow.wrong("share", "a number above 0 and up to 1")
    if shadow.content and len({"version", "engine"} & shadow.content.keys()) != 1:
        raise shadow.wrong("version", "the version that computes along, or engine, which computes the same version")
    any_signature = at.content.get("any_signature", False)
    if not isinstance(any_signature, bool):
        raise at.wrong("any_signature", "true or false")
    return ModelConfig(
        limits=_limits(at, shadow, settings),
        latest=at.whole("latest", 1),
        versions=None if versions is None else frozenset() if versions == "all" else frozenset(versions),
        labels=MappingProxyType(dict(labels.content)),
        shadow=shadow.whole("version", 1) if "version" in shadow.content else None,
        shadow_share=float(share),
        any_signature=any_signature,
    )


def _limits(at: _Place, shadow: _Place, settings: Settings) -> Limits:
    base = settings.limits
    limits = Limits(
        max_batch_rows=at.whole("max_batch_rows", base.max_batch_rows),
        queue_rows=at.whole("queue_rows", base.queue_rows),
        max_queue_delay_s=at.parsed("max_queue_delay", parsing.seconds, base.max_queue_delay_s),
        target_batch_s=at.parsed("target_batch_time", parsing.batch_time, base.target_batch_s),
        model_memory_bytes=at.parsed("model_memory", parsing.memory, base.model_memory_bytes),
        queue_bytes=base.queue_bytes,
        batching=at.parsed("batching", parsing.one_of(*BATCHING), base.batching),
        lengths=at.parsed("lengths", parsing.one_of(*LENGTHS), base.lengths),
        tags=_tags(at),
        signature=at.text("signature"),
        engine=at.parsed("engine", parsing.one_of(*ENGINES), base.engine),
        shadow_engine=shadow.parsed("engine", parsing.one_of(TENSORFLOW, LITERT), ""),
    )
    if limits.queue_rows < limits.max_batch_rows:
        raise at.wrong("queue_rows", f"at least max_batch_rows, {limits.max_batch_rows}")
    return limits


def _tags(at: _Place) -> tuple[str, ...]:
    tags = at.content.get("tags", ["serve"])
    if not isinstance(tags, list) or not tags or not all(isinstance(each, str) and each for each in tags):
        raise at.wrong("tags", 'a list of the tags that a MetaGraph has, such as ["serve"]')
    return tuple(tags) if "tags" in at.content else ()


def _is_version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
