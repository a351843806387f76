"""What a folder probably is that cannot be served as it is, and what to do about it.

Asked when something is wrong. Nothing here raises: where nothing can be told, a hint is empty.
"""

import mmap
from contextlib import suppress
from pathlib import Path

GRAPH = "saved_model.pb"
LITE = "model.tflite"
FILES = {GRAPH: "a SavedModel", LITE: "a model for LiteRT"}
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
            return f"{_shown(lower.relative_to(path))} is one level too low: move what is in {lower.parent.name} up"
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
            return f"its {file} is one level too high: {hint}"
        lower = _first(folder, f"*/{file}")
        if lower is not None:
            return f"{_shown(lower.parent.name)} is no version: expected a whole number, {_shown(folder)}/1/{file}"
        lower = _first(folder, f"*/*/{file}")
        if lower is not None:
            return f"{_shown(lower.relative_to(folder))} is too low: expected {_shown(folder)}/<integer version>/{file}"
    return _about_other_formats(folder)


def about_root(root: Path) -> str:
    """Say what the model root is if it is no root; empty if it is one."""
    for file, kind in FILES.items():
        if _is_file(root / file):
            return (
                f"--models {_shown(root)} is {kind} itself: its {file} is two levels too high; "
                f"expected DIR/<name>/<integer version>/{file}"
            )
    return ""


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
    for pattern in ("*.keras", "*.h5"):
        found = _first(path, pattern)
        if found is not None:
            return (
                f"it has only {_shown(found.name)}, which Keras alone can read; {instead}: "
                "keras.models.load_model(FILE).export(FOLDER) writes one"
            )
    found = _first(path, "*.tflite")
    if found is not None:
        return f"it has only {_shown(found.name)}: a model for LiteRT is called <integer version>/{LITE}"
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
