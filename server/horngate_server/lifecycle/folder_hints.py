"""What a folder probably is that cannot be served as it is, and what to do about it.

Asked when something is wrong. Nothing here raises: where nothing can be told, a hint is empty.
"""

import mmap
from contextlib import suppress
from pathlib import Path

GRAPH = "saved_model.pb"
INDEX = "variables/variables.index"
POINTER = b"version https://git-lfs.github.com/spec/v1"
"""How the text begins that Git LFS leaves in a large file's place."""
POINTER_BYTES = 1024
"""Such a text is never longer."""
_VARIABLES = (b"VarHandleOp", b"VariableV2")
"""The operations that hold a model's weights."""


def about_version(path: Path) -> str:
    """Say what a version's folder without a graph is instead; empty where nothing can be told."""
    lower = _first(path, f"*/{GRAPH}")
    if lower is not None:
        return f"{_shown(lower.relative_to(path))} is one level too low: move what is in {lower.parent.name} up"
    return _about_other_formats(path)


def about_model(folder: Path) -> str:
    """Say what a folder below the model root is that has no versions; empty where nothing can be told."""
    if _is_file(folder / GRAPH):
        hint = f"expected {_shown(folder)}/<integer version>/{GRAPH}, such as {_shown(folder)}/1/{GRAPH}"
        if folder.name.isdecimal():
            hint = (
                f"is --models the folder of one model? Expected the folder above it, DIR/<name>/{folder.name}/{GRAPH}"
            )
        return f"its {GRAPH} is one level too high: {hint}"
    lower = _first(folder, f"*/{GRAPH}")
    if lower is not None:
        return f"{_shown(lower.parent.name)} is no version: expected a whole number, {_shown(folder)}/1/{GRAPH}"
    lower = _first(folder, f"*/*/{GRAPH}")
    if lower is not None:
        return f"{_shown(lower.relative_to(folder))} is too low: expected {_shown(folder)}/<integer version>/{GRAPH}"
    return _about_other_formats(folder)


def about_root(root: Path) -> str:
    """Say what the model root is if it is no root; empty if it is one."""
    if not _is_file(root / GRAPH):
        return ""
    return (
        f"--models {_shown(root)} is a SavedModel itself: its {GRAPH} is two levels too high; "
        f"expected DIR/<name>/<integer version>/{GRAPH}"
    )


def about_pointers(path: Path) -> str:
    """Name the first file of a version that is a pointer of Git LFS; empty where none is."""
    for file in (path / GRAPH, *_sorted(path, "variables/*")):
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
    instead = "Horngate serves SavedModels"
    if _is_file(path / "saved_model.pbtxt"):
        return f"it has saved_model.pbtxt, the text form; expected the binary one, {GRAPH}"
    for pattern in ("*.keras", "*.h5"):
        found = _first(path, pattern)
        if found is not None:
            return (
                f"it has only {_shown(found.name)}, which Keras alone can read; {instead}: "
                "keras.models.load_model(FILE).export(FOLDER) writes one"
            )
    found = _first(path, "*.tflite")
    if found is not None:
        return f"it has only {_shown(found.name)}, a model for LiteRT; {instead}: export one of the same model"
    return ""


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
