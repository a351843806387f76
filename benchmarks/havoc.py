"""What happens to a server in `chaos`: events that change its disk, its processes or its log."""

import os
import random
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import trustme
from address import Address
from serving_process import foreign, tree_mb
from swaps import train

from horngate_server.transports.access.tokens import add
from support.process import ServerProcess, children

OTHERS = ("embed", "freeaxes")
"""Models that hostile callers ask besides ``mnist``."""
FOR_S = 8.0
"""How long a worker is stopped, and a log not read."""
EVERY_S = 3.0
"""From one event to the next."""
SAMPLE_S = 0.5


class World:
    """A model root, a token file and a certificate, and the server that has them.

    Attributes:
        models: the root: ``mnist`` with version 1, and what the callers need besides.
        address: for callers with a token, once the server runs.
        happened: events, by name.
        peak_mb: the most resident memory of the server and its workers so far.

    Args:
        folder: an empty one.
        versions: of ``mnist``, those with odd and those with even numbers.
        others: a root with `OTHERS`.
        dice: choose what happens when, and to which worker.
        flags: of the server.
    """

    def __init__(
        self, folder: Path, versions: tuple[Path, Path], others: Path, dice: random.Random, *flags: str
    ) -> None:
        self._folder = folder
        self._versions = versions
        self._dice = dice
        self._flags = flags
        self._authority = trustme.CA()
        self._tokens = folder / "tokens"
        self._number = 0
        self.models = folder / "models"
        self.happened: Counter[str] = Counter()
        self.peak_mb = 0.0
        self._ended = threading.Event()
        for name in OTHERS:
            shutil.copytree(others / name, self.models / name)

    def __enter__(self) -> Self:
        token, admin = (
            add(self._tokens, name, admin=is_admin) for name, is_admin in (("caller", False), ("admin", True))
        )
        self._kept = self._tokens.read_text()
        self._authority.cert_pem.write_to_path(self._folder / "ca.pem")
        self.new_certificate()
        self.new_version()
        pems = ["--tls-cert", self._folder / "server.pem", "--tls-key", self._folder / "server.key"]
        flags = [*map(str, pems), "--tokens", str(self._tokens), "--access-log", "0.1", *self._flags]
        self.server = ServerProcess(self.models, self._folder, *flags)
        self.server.__enter__()
        grpc, http = (
            at.removeprefix("http://").replace("localhost", "127.0.0.1") for at in (self.server.grpc, self.server.http)
        )
        self.address = Address(grpc, http, self._authority.cert_pem.bytes(), token, admin)
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()
        self._go_on()
        self.server.__exit__()

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self._folder / "ca.pem"

    def happen(self, names: list[str], stop: threading.Event) -> None:
        """Let these events happen in random order, one after the other, again and again until told to stop."""
        while not stop.is_set():
            for name in self._dice.sample(names, len(names)):
                if stop.wait(EVERY_S):
                    break
                EVENTS[name](self)
                self.happened[name] += 1
        self._go_on()

    def new_version(self) -> None:
        """Publish the next version of ``mnist``; take the one before the last away."""
        self._number += 1
        model = self.models / "mnist"
        partial = model / f".copy-{self._number}"
        shutil.copytree(self._versions[(self._number + 1) % 2], partial)
        partial.rename(model / str(self._number))
        shutil.rmtree(model / str(self._number - 2), ignore_errors=True)

    def new_certificate(self) -> None:
        """Renew the server's certificate and its key, by the same authority."""
        made = self._authority.issue_cert("localhost", "127.0.0.1")
        for name, blobs in (("server.pem", made.cert_chain_pems), ("server.key", [made.private_key_pem])):
            self._replace(self._folder / name, b"".join(blob.bytes() for blob in blobs))

    def new_tokens(self) -> None:
        """Give a guest another token than before; the callers keep theirs."""
        self._replace(self._tokens, self._kept.encode())
        add(self._tokens, f"guest-{sum(self.happened.values())}", admin=False)

    def unread_log(self) -> None:
        """Stop reading the log for a while."""
        self.server.reading.clear()
        self._later(self.server.reading.set)

    def killed_worker(self) -> None:
        """End a worker by SIGKILL."""
        self._signal_one(signal.SIGKILL)

    def stopped_worker(self) -> None:
        """Stop a worker for a while: it hangs, and its port is open."""
        number = self._signal_one(signal.SIGSTOP)
        self._later(lambda: _signal(number, signal.SIGCONT))

    def hung_disk(self) -> None:
        """Publish a version of another model that can be found and never be read."""
        version = self.models / "hung/1"
        if version.exists():
            return
        shutil.copytree(self._versions[0], self.models / "hung/.copy", dirs_exist_ok=True)
        (self.models / "hung/.copy/variables/variables.index").unlink()
        os.mkfifo(self.models / "hung/.copy/variables/variables.index")
        (self.models / "hung/.copy").rename(version)

    # --- private --------------------------------------------------------------------------------------

    def _replace(self, path: Path, content: bytes) -> None:
        """Write a file at once."""
        written = path.with_suffix(".new")
        written.write_bytes(content)
        written.rename(path)

    def _later(self, undo: Callable[[], object]) -> None:
        timer = threading.Timer(FOR_S, undo)
        timer.daemon = True
        timer.start()

    def _signal_one(self, number: signal.Signals) -> int:
        workers = children(self.server.process.pid)
        chosen = self._dice.choice(workers) if workers else 0
        _signal(chosen, number)
        return chosen

    def _go_on(self) -> None:
        """Undo what is undone after a while."""
        self.server.reading.set()
        for worker in children(self.server.process.pid):
            _signal(worker, signal.SIGCONT)

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, tree_mb(self.server.process.pid))


EVENTS: dict[str, Callable[[World], None]] = {
    "new version": World.new_version,
    "new certificate": World.new_certificate,
    "new tokens": World.new_tokens,
    "unread log": World.unread_log,
    "hung disk": World.hung_disk,
    "killed worker": World.killed_worker,
    "stopped worker": World.stopped_worker,
}
"""All of them by name."""
TO_WORKERS = frozenset({"killed worker", "stopped worker"})
"""Those that only a server with workers survives."""


def prepared(models: Path, *seeds: int) -> tuple[Path, ...]:
    """Write what is missing below a folder: `OTHERS`, and a version of ``mnist`` for each seed; return these."""
    foreign(models / "others", *OTHERS)
    versions = tuple(models / f"{seed}/mnist/1" for seed in seeds)
    for seed, version in zip(seeds, versions, strict=True):
        if not version.exists():
            train(models, seed)
    return versions


def _signal(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if process:
            os.kill(process, number)
