"""What survives a kill: the state after the last finished epoch, replaced atomically."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from horngate_trainer.errors import ResumeError
from horngate_trainer.publish import make_folder, sync_folder

FILE = Path(".training") / "checkpoint.npz"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after some of its epochs.

    Attributes:
        identity: the settings that it belongs to; a training with others cannot go on from it.
        history: one mapping per finished epoch, as `training.Epoch` holds.
        variables: the model's and the optimizer's, in their order.
    """

    identity: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    variables: Sequence[npt.NDArray[Any]]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into a model's folder; a reader sees the old one or the new one.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / FILE
    make_folder(path.parent)
    partial = path.with_suffix(".partial")
    meta = json.dumps({"identity": checkpoint.identity, "history": checkpoint.history})
    arrays: dict[str, Any] = {f"v{index}": array for index, array in enumerate(checkpoint.variables)}
    with partial.open("wb") as file:
        np.savez(file, meta=np.array(meta), **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def load(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read a model's checkpoint; None where there is none.

    Raises:
        ResumeError: it belongs to other settings (the text says which differ), or it cannot be read.
    """
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(str(archive["meta"]))
            variables = [archive[f"v{index}"] for index in range(len(archive.files) - 1)]
        found = Checkpoint(meta["identity"], meta["history"], variables)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ResumeError(f"{path} cannot be read ({exc}); train without --resume") from exc
    differing = [
        f"{key} (was {found.identity.get(key)}, is {value})"
        for key, value in identity.items()
        if value is not None and found.identity.get(key) != value
    ]
    if differing:
        raise ResumeError(f"--resume: the unfinished training had other settings: {', '.join(differing)}")
    return found


def remove(folder: Path) -> None:
    """Remove a model's checkpoint, if there is one."""
    path = folder / FILE
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def exists(folder: Path) -> bool:
    """Whether there is an unfinished training."""
    return (folder / FILE).is_file()
