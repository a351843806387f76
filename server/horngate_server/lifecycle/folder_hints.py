"""What a folder probably is that cannot be served as it is, and what to do about it.

Asked when something is wrong. Nothing here raises: where nothing can be told, a hint is empty.
"""

import mmap
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

GRAPH = "saved_model.pb"
LITE = "model.tflite"
FILES = {GRAPH: "a SavedModel", LITE: "a model for LiteRT"}
KERAS = (".keras", ".h5", ".hdf5")
"""How files are called that Keras alone can read."""
TRITON = "model.savedmodel"
"""Where Triton has a version's SavedModel."""
_OTHERS = ("*.onnx", "*.plan", "*.pt", "*.graphdef")
"""What other servers serve."""
INDEX = "variables/variables.index"
POINTER = b"version https://git-lfs.github.com/spec/v1"
"""How the text begins that Git LFS leaves in a large file's place."""
POINTER_BYTES = 1024
"""Such a text is never longer."""
_VARIABLES = (b"VarHandleOp", b"VariableV2")
"""The operations that hold a model's weights."""


def about_version(path: Path) -> str:
    """Say what a version's folder without a graph is instead; empty where nothing can be told."""
    for file in FILES:
        lower = _first(path, f"*/{file}")
        if lower is not None:
            triton = "that is Triton's layout: " if lower.parent.name == TRITON else ""
            what = f"{_shown(lower.relative_to(path))} is one level too low: move what is in {lower.parent.name} up"
            return triton + what
    return _about_other_formats(path)


def about_model(folder: Path) -> str:
    """Say what a folder below the model root is that has no versions; empty where nothing can be told."""
    for file in FILES:
        if _is_file(folder / file):
            hint = f"expected {_shown(folder)}/<integer version>/{file}, such as {_shown(folder)}/1/{file}"
            if folder.name.isdecimal():
                hint = (
                    "is --models the folder of one model? Expected the folder above it, "
                    f"DIR/<name>/{folder.name}/{file}"
                )
            return f"its {file} is one level too high: {hint}; or serve it as it is: {_served(folder)}"
        lower = _first(folder, f"*/{file}")
        if lower is not None:
            if lower.parent.name == TRITON:
                return about_version(folder)
            return f"{_shown(lower.parent.name)} is no version: expected a whole number, {_shown(folder)}/1/{file}"
        lower = _first(folder, f"*/*/{file}")
        if lower is not None:
            return f"{_shown(lower.relative_to(folder))} is too low: expected {_shown(folder)}/<integer version>/{file}"
    triton = f"it has Triton's config.pbtxt and no version: expected {_shown(folder)}/<integer version>/{GRAPH}"
    return _about_other_formats(folder) or (triton if _is_file(folder / "config.pbtxt") else "")


def about_versions(folder: Path) -> Mapping[Path, str]:
    """Say which folders beside a model's versions look like versions and are none."""
    return {
        each: f"it is no version: expected a whole number, such as {_shown(folder)}/2"
        for each in _sorted(folder, "*")
        if not each.name.isdecimal() and not each.name.startswith(".") and any(_is_file(each / file) for file in FILES)
    }


def about_root(root: Path) -> Mapping[Path, str]:
    """Say what lies in a model root itself that belongs elsewhere."""
    for file, kind in FILES.items():
        if _is_file(root / file):
            what = (
                f"--models {_shown(root)} is {kind} itself: its {file} is two levels too high; "
                f"expected DIR/<name>/<integer version>/{file}"
            )
            return {root: what}
    return {each: about_file(each) for each in _sorted(root, "*.*") if each.suffix in (*KERAS, ".tflite")}


def about_file(path: Path) -> str:
    """Say what to do with a lone file of Keras's or LiteRT's."""
    if path.suffix == ".tflite":
        return f"expected DIR/<name>/<integer version>/{LITE}; or serve it as it is: {_served(path)}"
    name = shlex.quote(_shown(path.stem))
    command = f"`horngate-trainer import {shlex.quote(_shown(path))} --name {name}`"
    return f"Keras alone can read it: {command} makes a model of it that can be served"


def about_pointers(path: Path) -> str:
    """Name the first file of a version that is a pointer of Git LFS; empty where none is."""
    for file in (path / GRAPH, path / LITE, *_sorted(path, "variables/*")):
        if is_pointer(file):
            return about_pointer(path, file)
    return ""


def about_pointer(path: Path, file: Path) -> str:
    """Say what to do about a file that is a pointer of Git LFS."""
    name = _shown(file.relative_to(path))
    return (
        f"{_shown(path)}: {name} is a Git LFS pointer, a few lines of text in the file's place: run `git lfs pull` in "
        "the clone that it comes from, and copy it again"
    )


def is_pointer(file: Path) -> bool:
    """Whether a file is a pointer of Git LFS instead of what it is called."""
    with suppress(OSError):
        if file.is_file() and file.stat().st_size < POINTER_BYTES:
            return file.read_bytes().startswith(POINTER)
    return False


def about_variables(path: Path) -> str:
    """Say which of a version's variables are missing, if its graph has some; empty where none are."""
    if _is_file(path / INDEX):
        if _first(path, "variables/variables.data-*") is None:
            return "variables/variables.data-* is not there, which holds its weights: copy the whole folder"
        return ""
    if not _has_variables(path / GRAPH):
        return ""
    return f"{INDEX} is not there, and its graph has variables: copy the whole folder, variables/ too"


# --- private ------------------------------------------------------------------------------------------


def _about_other_formats(path: Path) -> str:
    instead = "Horngate serves SavedModels and models for LiteRT"
    if _is_file(path / "saved_model.pbtxt"):
        return f"it has saved_model.pbtxt, the text form; expected the binary one, {GRAPH}"
    for suffix in KERAS:
        found = _first(path, f"*{suffix}")
        if found is not None:
            return f"it has only {_shown(found.name)}; {instead}; {about_file(found)}"
    found = _first(path, "*.tflite")
    if found is not None:
        return f"it has only {_shown(found.name)}: a model for LiteRT is called <integer version>/{LITE}"
    for pattern in _OTHERS:
        found = _first(path, pattern)
        if found is not None:
            return f"it has only {_shown(found.name)}; {instead}"
    return ""


def _served(path: Path) -> str:
    return f"`horngate-server {shlex.quote(_shown(path))}`"


def _has_variables(graph: Path) -> bool:
    with (
        suppress(OSError, ValueError),  # an empty file cannot be mapped
        graph.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return any(content.find(each) >= 0 for each in _VARIABLES)
    return False


def _is_file(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file()
    return False


def _first(path: Path, pattern: str) -> Path | None:
    return next(iter(_sorted(path, pattern)), None)


def _sorted(path: Path, pattern: str) -> list[Path]:
    with suppress(OSError):
        return sorted(path.glob(pattern))
    return []


def _shown(name: Path | str) -> str:
    return str(name).encode(errors="backslashreplace").decode()
