"""Which versions of a store are fetched, in which order, and which stay in the cache: decisions, without a store."""

from collections.abc import Mapping

from horngate_server.lifecycle import version_policy
from horngate_server.lifecycle.model_cache import Cached
from horngate_server.lifecycle.model_config import ModelConfig
from horngate_server.lifecycle.remote_listing import Key, RemoteVersion
from horngate_server.lifecycle.version_state import State

USED = {State.LOADING, State.READY, State.DRAINING}
"""Versions in these states stay in the cache."""


class FetchPlan:
    """What is to be fetched of one model, in order: what ought to be served, and older ones where that cannot be.

    Args:
        config: what is wanted of the model.
        name: its name.
        remote: what the store has, of all models.
        cached: what the cache has.
        states: what became of every version.
    """

    def __init__(
        self,
        config: ModelConfig,
        name: str,
        remote: Mapping[Key, RemoteVersion],
        cached: Mapping[Key, Cached],
        states: Mapping[Key, State],
    ) -> None:
        self._config = config
        self._name = name
        self._numbers = {number for model, number in remote if model == name}
        self._cached = {number for model, number in cached if model == name}
        self._states = {number: state for (model, number), state in states.items() if model == name}
        both = self._cached & self._numbers
        self._changed = {number for number in both if cached[name, number].tag != remote[name, number].tag}
        failed = {number for number, state in self._states.items() if state == State.FAILED}
        self._refused = failed - self._changed
        self._tried: set[int] = set()

    def next(self) -> Key | None:
        """Return the version to fetch now; None where all is done."""
        absent = [number for number in self._wanted() if number not in self._cached]
        due = (number for number in [*absent, *sorted(self._changed)] if number not in self._tried)
        return next(((self._name, number) for number in due), None)

    def tried(self, key: Key, *, taken: bool) -> None:
        """Note what came of it; in the place of one that cannot be served, an older one is wanted."""
        self._tried.add(key[1])
        if taken:
            self._cached.add(key[1])
        elif key[1] not in self._cached:
            self._refused.add(key[1])

    def keep(self) -> set[Key]:
        """Return the versions that stay in the cache: what serves, what ought to, and in any case the newest."""
        used = {number for number, state in self._states.items() if state in USED}
        newest = {max(self._cached)} if self._cached else set()
        return {(self._name, number) for number in {*self._wanted(), *used, *newest}}

    def _wanted(self) -> list[int]:
        labelled = set(self._config.labels.values())
        return version_policy.wanted(self._config, labelled, self._numbers, self._refused)
