"""What survives a kill: each training's own folder with the state after its last finished epoch, replaced atomically.

Trainings of one model at once know nothing of each other: each has a folder of its own in ``<model>/.training/``,
locked for as long as its trainer lives. The kernel drops the lock when that dies, so what can be locked is there to be
taken up again, or to be removed. Two states are kept, so that a damaged one costs an epoch and not the training.
"""

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from horngate_trainer.errors import CheckpointError, ResumeError, first_line
from horngate_trainer.publish import make_folder, sync_folder

FOLDER = Path(".training")
CURRENT, PREVIOUS, PARTIAL = "checkpoint.npz", "previous.npz", "partial.npz"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after some of its epochs.

    Attributes:
        identity: the settings that it belongs to; a training with others cannot go on from it.
        history: one mapping per finished epoch, as `training.Epoch` holds.
        variables: the model's and the optimizer's, in their order.
        run: names this training among all others; the version that it publishes has it in its manifest.
    """

    identity: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    variables: Sequence[npt.NDArray[Any]]
    run: str = ""


class Keeper:
    """Keeps the checkpoints of one training.

    Args:
        model: the model's folder.
        run: names the training; drawn where it is new.
    """

    def __init__(self, model: Path, run: str | None = None) -> None:
        self.run = run or secrets.token_hex(8)
        self._home = model / FOLDER
        self._folder: Path | None = None
        self._lock = -1

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; a reader sees the old one or the new one. The first one replaces abandoned trainings.

        Raises:
            OSError: it cannot be written.
        """
        folder = self._folder or self._begin()
        meta = {
            "identity": checkpoint.identity,
            "history": checkpoint.history,
            "run": self.run,
            "variables": len(checkpoint.variables),
        }
        arrays: dict[str, Any] = {f"v{index}": array for index, array in enumerate(checkpoint.variables)}
        with (folder / PARTIAL).open("wb") as file:
            np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            (folder / CURRENT).replace(folder / PREVIOUS)
        (folder / PARTIAL).replace(folder / CURRENT)
        sync_folder(folder)

    def take_over(self, folder: Path, lock: int) -> None:
        """Go on in the folder of a trainer that died; the lock is its descriptor, which this closes at the end."""
        self._folder, self._lock = folder, lock

    def remove(self) -> None:
        """Remove this training's checkpoints: it is finished. Folders go, too, that a killed trainer left empty."""
        with _alone(self._home) as there:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self.close()
            for folder, lock in _abandoned(self._home, certainly=True):
                if not (folder / CURRENT).exists() and not (folder / PREVIOUS).exists():
                    shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
            if there and not any(self._home.iterdir()):
                self._home.rmdir()

    def close(self) -> None:
        """Leave this training to whoever resumes it."""
        if self._folder is not None:
            self._folder = None
            os.close(self._lock)

    def _begin(self) -> Path:
        with _alone(self._home, make=True):
            for folder, lock in _abandoned(self._home, certainly=True):
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
            # Nobody else can enter it: the names inside need not be guarded.
            self._folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._home))
            self._lock = _locked(self._folder)
            sync_folder(self._home)
        return self._folder


def exists(model: Path) -> bool:
    """Whether a training was begun that nobody works at any more."""
    with _alone(model / FOLDER) as there:
        found = list(_abandoned(model / FOLDER, certainly=True)) if there else []
        for _, lock in found:
            os.close(lock)
    return bool(found)


def resume(model: Path, identity: Mapping[str, Any], say: Callable[[str], None]) -> tuple[Keeper, Checkpoint] | None:
    """Take up the training that came farthest of those that nobody works at; None where there is none.

    Args:
        model: its folder.
        identity: the settings that it must have been begun with; None stands for any.
        say: told, in a line, of whatever was damaged and what is used instead.

    Raises:
        ResumeError: all there are belong to other settings; the text says which differ.
        CheckpointError: the only ones there are cannot be read; the text says what to do.
        OSError: the folder cannot be read.
    """
    found: list[tuple[Checkpoint, Path, int]] = []
    damaged, other = "", ""
    with _alone(model / FOLDER) as there:
        locks = dict(_abandoned(model / FOLDER)) if there else {}
        for folder in locks:
            checkpoint, problem = _newest(folder)
            if problem:
                damaged = problem
                say(problem if checkpoint is None else f"{problem}; going on from the one before it")
            if checkpoint is None:
                continue
            others = differing(checkpoint.identity, identity)
            other = others or other
            if not others:
                found.append((checkpoint, folder, locks[folder]))
        best = max(found, key=lambda each: (len(each[0].history), each[1].stat().st_mtime_ns), default=None)
        for folder, lock in locks.items():
            if best is None or folder != best[1]:
                os.close(lock)
    if best is not None:
        checkpoint, folder, lock = best
        keeper = Keeper(model, checkpoint.run)
        keeper.take_over(folder, lock)
        return keeper, checkpoint
    if damaged:
        raise CheckpointError(f"{damaged}: train without --resume, which begins again and replaces it")
    if other:
        raise ResumeError(f"--resume: the unfinished training had other settings: {other}")
    return None


def differing(found: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """Say which settings are others than those that were found; empty where none are. None stands for any."""
    return ", ".join(
        f"{key} (was {found.get(key)}, is {value})"
        for key, value in identity.items()
        if key not in found or (value is not None and found[key] != value)
    )


# --- private ---------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(home: Path, *, make: bool = False) -> Iterator[bool]:
    """Let nobody else make, take up or remove a training meanwhile; yield whether there is a folder of trainings."""
    while True:
        if make:
            make_folder(home)
        try:
            descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if make:
                continue  # another trainer was the last to leave it
            yield False
            return
        try:
            with suppress(OSError):  # some network file systems cannot lock a folder
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:  # not removed while this waited
                yield True
                return
        finally:
            os.close(descriptor)


def _abandoned(home: Path, *, certainly: bool = False) -> Iterator[tuple[Path, int]]:
    """Yield the folders of trainings whose trainers are gone, each with the descriptor that locks it now.

    Args:
        home: where they are.
        certainly: leave those out that cannot be locked at all, as on some network file systems.
    """
    for folder in sorted(home.glob("run-*")):
        try:
            lock = _locked(folder, certainly=certainly)
        except OSError:  # somebody works there, or it is another user's
            continue
        yield folder, lock


def _locked(folder: Path, *, certainly: bool = False) -> int:
    """Lock a folder until the descriptor is closed, or this process ends.

    Raises:
        OSError: it is locked by another process, cannot be opened, or (``certainly``) not be locked at all.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if certainly or isinstance(exc, BlockingIOError):
            os.close(descriptor)
            raise
    return descriptor


def _newest(folder: Path) -> tuple[Checkpoint | None, str]:
    """Read a training's last state, or the one before it; with what was wrong, empty where nothing was."""
    problem = ""
    for name in (CURRENT, PREVIOUS):
        try:
            return _read(folder / name), problem
        except FileNotFoundError:
            continue  # killed before the first was finished, or between two
        except CheckpointError as exc:
            problem = problem or str(exc)
    return None, problem


def _read(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            meta = json.loads(str(archive["meta"]))
            variables = [archive[f"v{index}"] for index in range(meta["variables"])]
        found = Checkpoint(dict(meta["identity"]), list(map(dict, meta["history"])), variables, str(meta["run"]))
    except FileNotFoundError:
        raise
    except Exception as exc:  # a damaged zip makes its readers raise anything
        raise CheckpointError(f"{path} is damaged ({first_line(exc)})") from exc
    return found
