"""Writes into the file ``--config`` what an administrator has decided: a label; nothing else in the file changes."""

import os
import shutil
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Item

from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Settings
from horngate_server.lifecycle import model_config
from horngate_server.lifecycle.model_config import Config


def check(path: Path) -> None:
    """Say at once if the file cannot be written.

    Raises:
        SettingsError: neither it nor another in its place.
    """
    if not os.access(path.resolve().parent, os.W_OK):
        raise SettingsError(f"--write-config: no file can be written in {path.resolve().parent}")


def set_label(path: Path, settings: Settings, model: str, label: str, version: int) -> Config:
    """Write which version a label is; comments and all else stay as they are. Readers see the old file or the new one.

    Returns:
        What the file says now.

    Raises:
        SettingsError: it is wrong as it is, or cannot be written; it has not changed.
    """
    path = path.resolve()  # a link stays one
    partial = path.with_name(f".{path.name}.partial")
    try:
        document = tomlkit.parse(path.read_bytes().decode())
        models = document.setdefault("models", tomlkit.table(is_super_table=True))
        labels = models.setdefault(model, tomlkit.table()).setdefault("labels", tomlkit.inline_table())
        labels[label] = _commented(version, labels.get(label))
        with partial.open("wb") as file:
            file.write(tomlkit.dumps(document).encode())
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, partial)
        config = model_config.read(partial, settings)
        partial.replace(path)
    except SettingsError as error:
        raise SettingsError(str(error).replace(str(partial), str(path))) from error
    except OSError as error:
        raise SettingsError(f"--config {path} cannot be written: {error.strerror}") from error
    except (TOMLKitError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise SettingsError(f"--config {path} is wrong, and nothing is written into it: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return config


# --- private ------------------------------------------------------------------------------------------


def _commented(value: int, before: object) -> Item:
    """Return a number with the comment that stood behind the one before it."""
    new = tomlkit.item(value)
    if isinstance(before, Item):
        new.trivia.comment_ws, new.trivia.comment = before.trivia.comment_ws, before.trivia.comment
    return new
