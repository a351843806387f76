"""Where the models lie that are served: whatever an operator names, taken as it stands, where it stands.

A place is a root, ``<name>/<version>/``; the folder of one model, ``<version>/``, as TensorFlow Serving's base path and
KServe's storage have it; or one version alone, a SavedModel's folder or a ``.tflite`` file. What a place is, its
content says: its owner may fill it later.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from horngate_protos.stores import StoreUrl
from horngate_server.core.errors import ModelError, SettingsError
from horngate_server.core.settings import LITERT, Settings
from horngate_server.lifecycle import folder_hints, repository
from horngate_server.lifecycle.folder_hints import FILES, GRAPH, KERAS, LITE
from horngate_server.lifecycle.repository import Listing

EXPECTED = (
    f"expected a SavedModel's folder (with {GRAPH}), a .tflite file, a model's folder (with 1/{GRAPH} or 1/{LITE}), or "
    "a folder of models' folders"
)


class Kind(Enum):
    """What a place is."""

    ROOT = auto()
    MODEL = auto()
    VERSION = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """Where versions lie, and what they are versions of.

    Attributes:
        path: a folder, or a ``.tflite`` file.
        kind: what it is.
        name: the model's; empty for a root, whose folders say it.
        number: the version's, of a version alone.
    """

    path: Path
    kind: Kind
    name: str = ""
    number: int = 1

    def look(self) -> Listing:
        """Find what is there now.

        Raises:
            ModelError: it is a root, and no folder that can be read.
        """
        if self.kind is Kind.ROOT:
            return repository.look(self.path)
        if self.kind is Kind.MODEL:
            return repository.look_at_model(self.path, self.name)
        if repository.shown(self.name) != self.name:
            return Listing(ignored={self.path: "its name is not UTF-8: no caller could ask for it; give it a --name"})
        return Listing({self.name: {self.number: self.path}} if self.path.exists() else {})


def recognised(path: Path, name: str = "") -> Place | None:
    """Say what lies at a path; None where nothing that can be served does so far.

    Args:
        path: what an operator names; a version's folder may be named by its ``saved_model.pb``.
        name: the model's; where it is left out, a folder's name or a file's is.

    Raises:
        OSError: it cannot be read, or there is nothing.
    """
    if path.name == GRAPH and path.is_file():
        path = path.parent
    whole = Path(os.path.abspath(path))  # a link keeps its own name
    if not path.is_dir():
        path.stat()
        if path.suffix != ".tflite":
            return None
        return _version(path, whole.parent, name) if path.name == LITE else Place(path, Kind.VERSION, name or path.stem)
    folders = [each for each in path.iterdir() if not each.name.startswith(".") and each.is_dir()]
    if any(_has_versions(each) for each in folders):
        return Place(path, Kind.ROOT)
    if any((path / file).is_file() for file in FILES):
        return _version(path, whole, name)
    if any(repository.number_of(each.name) is not None and any(each.iterdir()) for each in folders):
        return Place(path, Kind.MODEL, name or whole.name)
    return None


def needs_tensorflow(settings: Settings) -> bool:
    """Whether what is there to be served needs TensorFlow's library; False where only a closer look could tell."""
    if settings.engine == LITERT or settings.config is not None:
        return False
    try:
        models = ModelPlaces(settings).look().models
        return any((path / GRAPH).is_file() for versions in models.values() for path in versions.values())
    except (ModelError, OSError):  # who serves says it
        return False


class ModelPlaces:
    """All places of a server. What one has once been recognised as, it stays.

    Args:
        settings: which places, and the models' names.

    Attributes:
        paths: what the operator names.
    """

    def __init__(self, settings: Settings) -> None:
        self.paths: Sequence[Path] = settings.model or (settings.model_root,)
        self._named = list(zip(self.paths, settings.name or ("",) * len(self.paths), strict=True))
        self._flag = "MODEL" if settings.model else "--models"
        self._known: dict[tuple[Path, str], Place] = {}
        if isinstance(settings.models, StoreUrl) and not settings.model:  # fetched from there, made when it is begun
            self._known = {each: Place(each[0], Kind.ROOT) for each in self._named}

    def check(self) -> None:
        """Say at once what is wrong with what the operator names.

        Raises:
            SettingsError: what lies there, what was expected, and what to do.
            ModelError: ``--models`` cannot be read.
        """
        for path, name in self._named:
            self._check(path, name)
        [(most, times)] = Counter(each.name for each in self._known.values()).most_common(1) or [("", 0)]
        if most and times > 1:
            raise SettingsError(f"{times} models are called {most}: give each a name, --name A --name B")

    def look(self) -> Listing:
        """Find what is there now.

        Raises:
            ModelError: a root is no folder that can be read.
        """
        return repository.joined([self._place(*each).look() for each in self._named])

    def folder_of(self, model: str) -> Path:
        """Return where a model's versions lie, or would."""
        places = list(self._known.values())
        named = [each.path for each in places if each.name == model]
        below = [each.path / model for each in places if each.kind is Kind.ROOT]
        return next((each for each in (*named, *below) if each.exists()), self.paths[0] / model)

    def expected(self) -> str:
        """Say what is waited for while there is no model."""
        return f"{', '.join(map(repository.shown, self.paths))} to hold <name>/<integer version>/{GRAPH} or {LITE}"

    # --- private --------------------------------------------------------------------------------------

    def _place(self, path: Path, name: str) -> Place:
        """Return a path's place; for now a root, or where a name is given a model's folder, if nothing is there yet."""
        try:
            place = self._known.get((path, name)) or recognised(path, name)
        except OSError:
            place = None  # to look at it says why
        if place is None:
            return Place(path, Kind.MODEL if name else Kind.ROOT, name)
        return self._known.setdefault((path, name), place)

    def _check(self, path: Path, name: str) -> None:
        at = f"{self._flag} {repository.shown(path)}"
        try:
            place = self._known.get((path, name)) or recognised(path, name)
        except OSError as error:
            if self._flag == "MODEL":
                raise SettingsError(f"{at}: {error.strerror}; {EXPECTED}") from error
            raise ModelError(f"{at}: {error.strerror}; name what is to be served: horngate-server MODEL") from error
        if place is not None:
            self._known[path, name] = place
        elif not path.is_dir():
            what = folder_hints.about_file(path) if path.suffix in KERAS else EXPECTED
            raise SettingsError(f"{at}: {what}")
        elif self._flag == "MODEL":
            what = folder_hints.about_model(path) or "nothing there can be served"
            raise SettingsError(f"{at}: {what}; {EXPECTED}")
        if name and place is not None and place.kind is Kind.ROOT:
            raise SettingsError(f"--name {name}: {at} holds several models, which have their folders' names")


# --- private ------------------------------------------------------------------------------------------


def _version(path: Path, folder: Path, name: str) -> Place:
    """Return the place of one version, from the name of its folder; ``mnist/3`` is version 3 of mnist."""
    number = repository.number_of(folder.name)
    if number is None:
        return Place(path, Kind.VERSION, name or folder.name)
    return Place(path, Kind.VERSION, name or folder.parent.name, number)


def _has_versions(folder: Path) -> bool:
    try:
        return any(repository.number_of(each.name) is not None and each.is_dir() for each in folder.iterdir())
    except OSError:
        return False
