"""Keeps a local model root as an object store has it: what ought to be served is fetched whole, beside serving.

Everything else looks at the local root alone, and does not know that there is a store. One thread looks at the store
with one listing, now and then, and fetches what the version policy wants. What cannot be taken is a warning, and
changes nothing: a version appears in the local root once it is whole, and what serves goes on. docs/object-stores.md
has what happens for each fault.
"""

import logging
import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from horngate_protos.stores import StoreUrl
from horngate_server.core.clock import Clock
from horngate_server.core.errors import HorngateError, ModelError, StoreError
from horngate_server.core.rate_limited_log import RateLimitedLog
from horngate_server.core.settings import Settings
from horngate_server.lifecycle import repository
from horngate_server.lifecycle.fetch_plan import FetchPlan
from horngate_server.lifecycle.model_cache import Cached, ModelCache
from horngate_server.lifecycle.model_config import ModelConfig
from horngate_server.lifecycle.remote_listing import Key, RemoteVersion, versions
from horngate_server.lifecycle.remote_store import RemoteFile, RemoteStore
from horngate_server.lifecycle.version_state import VersionState
from horngate_server.runtimes.thread_priority import stand_back

log = logging.getLogger(__name__)

LOOK_EVERY = 10
"""A store is looked at once in so many looks at a folder: each costs money."""
WARNING_EVERY_S = 60.0
"""Between two warnings of a kind."""
BEGIN_PATIENCE_S = 60.0
"""How long a server with an empty cache waits for its first versions before it begins without."""


class RemoteRepository:
    """The thread between an object store and the local root.

    Args:
        store: what is looked at.
        cache: the local root.
        every_s: between two looks.
        config_of: what is wanted of a model, by its name.
        states: what became of every version.
        clock: monotonic seconds.
        stopping: set when the process is to stop.
    """

    def __init__(
        self,
        store: RemoteStore,
        cache: ModelCache,
        *,
        every_s: float,
        config_of: Callable[[str], ModelConfig],
        states: Callable[[], Iterable[VersionState]],
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._cache = cache
        self._every_s = every_s
        self._config_of = config_of
        self._states = states
        self._clock = clock
        self._stopping = stopping
        self._warnings = RateLimitedLog(log, clock, WARNING_EVERY_S)
        self._begun = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._listed: Mapping[Key, str] | None = None
        self._missing: set[Key] = set()
        self._looks = 0
        self._held_back: dict[Key, _HeldBack] = {}

    @classmethod
    def of(
        cls,
        settings: Settings,
        config_of: Callable[[str], ModelConfig],
        states: Callable[[], Iterable[VersionState]],
        clock: Clock,
        stopping: threading.Event,
    ) -> "RemoteRepository | None":
        """Return the one of the store that ``--models`` names; None where it names a folder.

        Raises:
            StoreError: the store's variables cannot be used.
        """
        if not isinstance(settings.models, StoreUrl):
            return None
        return cls(
            RemoteStore(settings.models),
            ModelCache(settings.model_root, settings.model_cache_bytes),
            every_s=settings.watch_interval_s * LOOK_EVERY,
            config_of=config_of,
            states=states,
            clock=clock,
            stopping=stopping,
        )

    def start(self) -> None:
        """Look, and keep looking, on a thread of its own.

        Raises:
            SettingsError: the cache cannot be written.
        """
        self._cache.open()
        self._thread.start()

    def wait_begun(self) -> None:
        """Wait for what is to be served first: not where the cache has some of it already."""
        if not self._cache.versions():
            self._begun.wait(BEGIN_PATIENCE_S)

    def look_now(self) -> None:
        """Look at once, and try again what could not be taken. Callable from any thread."""
        self._held_back.clear()
        self._wake.set()

    def stop(self) -> None:
        """Wake who waits, once the process is to stop; the thread ends with what it is at, and keeps nobody."""
        self._begun.set()
        self._wake.set()

    def look(self) -> None:
        """Look once, and fetch what ought to be there.

        Raises:
            StoreError: the store cannot be listed.
            ModelError: the cache cannot be read.
        """
        self._looks += 1
        remote = versions(self._store.listing())
        before, self._listed = self._listed, {key: each.tag for key, each in remote.items()}
        cached = self._cache.versions()
        if not remote:
            kept = f"; the {len(cached)} in the cache stay" if cached else ""
            self._warn("empty", f"{self._store.url} has no <name>/<integer version>/{kept}")
            return
        self._remove_deleted(remote, cached)
        still = {key for key, tag in self._listed.items() if (before or {}).get(key) == tag}
        states = {(each.name, each.version): each.state for each in self._states()}
        plans = {
            name: FetchPlan(self._config_of(name), name, remote, cached, states)
            for name in sorted({name for name, _ in remote})
        }
        for plan in plans.values():
            while (key := plan.next()) is not None:
                keep = set().union(*(each.keep() for each in plans.values()))
                plan.tried(key, taken=self._take(remote[key], keep, still=key in still))

    # --- private: the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        stand_back()
        pause = 0.0
        while not self._stopping.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            pause = self._every_s
            try:
                with self._cache.owned() as ours:
                    if ours and not self._stopping.is_set():
                        again = self._listed is None
                        self.look()
                        if again and not self._cache.versions():  # those without a manifest must be looked at twice
                            self._wake.wait(self._every_s / LOOK_EVERY)
                            self._wake.clear()
                            self.look()
            except _Stopped:
                break
            except (HorngateError, OSError) as error:
                self._warn("look", f"{error}; what serves goes on, and the next look is in {self._every_s:g} s")
            except Exception as error:  # noqa: BLE001 - logged with its traceback, but not at every look
                self._warnings.note("bug", logging.ERROR, "the look at %s failed", self._store.url, exc_info=error)
            self._begun.set()
        self._cache.close()

    def _warn(self, kind: object, message: str) -> None:
        self._warnings.note(kind, logging.WARNING, "%s", message)

    # --- private: what is to be there -----------------------------------------------------------------

    def _remove_deleted(self, remote: Mapping[Key, RemoteVersion], cached: Mapping[Key, Cached]) -> None:
        """Remove what two looks in a row have not found in the store: as if a local folder had been deleted."""
        missing = set(cached) - set(remote)
        for key in sorted(missing & self._missing):
            log.info("model %s version %d is deleted: %s has it no more", *key, self._store.url)
            self._cache.remove(cached[key].path)
        self._missing = missing - self._missing

    def _take(self, version: RemoteVersion, keep: Collection[Key], *, still: bool) -> bool:
        """Fetch a version, if that can be; say why not."""
        key = version.name, version.number
        what = f"model {version.name} version {version.number} of {self._store.url}"
        held = self._held_back.get(key)
        if held is not None and held.tag == version.tag and self._looks < held.until:
            self._warn(key, held.why)
            return False
        try:
            self._fetch(version, keep, still=still)
        except _NotYet as error:
            level = logging.WARNING if still else logging.INFO  # whoever writes it may go on
            self._warnings.note((key, level), level, "%s is not taken: %s", what, error)
        except ModelError as error:  # its bytes are not what its manifest says
            why = f"{what} is damaged, and not taken before it changes: {error}"
            self._hold_back(key, version.tag, why, for_good=True)
        except StoreError as error:
            self._hold_back(key, version.tag, f"{what} is not taken: {error}")
        except OSError as error:
            why = f"{what} cannot be written to {self._cache.root}: {error.strerror or error}"
            self._hold_back(key, version.tag, why)
        else:
            self._held_back.pop(key, None)
            return True
        return False

    def _hold_back(self, key: Key, tag: str, why: str, *, for_good: bool = False) -> None:
        """Try a version again at the next look, then after two, four, up to 32: fetching it in vain costs, too."""
        before = self._held_back.get(key)
        tries = before.tries + 1 if before is not None and before.tag == tag else 0
        self._held_back[key] = _HeldBack(tag, why, tries, math.inf if for_good else self._looks + 2 ** min(tries, 5))
        self._warn(key, why)

    def _fetch(self, version: RemoteVersion, keep: Collection[Key], *, still: bool) -> None:
        """Fetch a version whole, the manifest first, and let it appear in the local root.

        Raises:
            StoreError: it is half written, there is no room for it, or the store fails.
            ModelError: its bytes are not what its manifest says.
            OSError: the cache cannot be written.
        """
        manifest = version.files.get(repository.MANIFEST)
        if not any(file in version.files for file in repository.FILES.values()):
            raise _NotYet(f"half written: it has none of {', '.join(repository.FILES.values())} yet")
        if manifest is None and not still:
            raise _NotYet("it has no manifest, and is fetched once two looks in a row find it the same")
        began = self._clock()
        with self._cache.staging(version.name, version.number) as path:
            rest = dict(version.files)
            if manifest is not None:
                del rest[repository.MANIFEST]
                self._cache.write(path / repository.MANIFEST, self._read(manifest))
                lacks = sorted(set(repository.manifest_of(path)["files"]) - set(version.files))
                if lacks:
                    raise _NotYet(f"half written: it lacks {lacks[0]!a}, which its manifest lists")
            for removed in self._cache.make_room(version.bytes, keep):
                log.info("model %s version %d leaves the cache: there is no more room for it", *removed)
            for name, file in rest.items():
                self._cache.write(path / name, self._read(file))
            repository.read(path, self._go_on)
            self._cache.adopt(path, version.tag, version.bytes)
        log.info("fetched model %s version %d from %s: %.1f MB in %.2f s", version.name, version.number,
                 self._store.url, version.bytes / 1e6, self._clock() - began)  # fmt: skip

    def _read(self, file: RemoteFile) -> Iterator[memoryview]:
        """Yield an object's pieces, unless the process is to stop."""
        for piece in self._store.read(file):
            self._go_on()
            yield piece

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise _Stopped


# --- private ------------------------------------------------------------------------------------------


class _HeldBack(NamedTuple):
    """A version that could not be taken: with which tag, why, after how many tries, and before which look not again."""

    tag: str
    why: str
    tries: int
    until: float


class _NotYet(StoreError):
    """It may be still being written."""


class _Stopped(Exception):
    """The process is to stop."""
