"""Which MetaGraph of a SavedModel is meant: read from the outermost message, without parsing what it holds."""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

from horngate_protos.tensorflow_pb2 import MetaGraphDef
from horngate_server.core.errors import ModelError

SERVE = "serve"
"""What TensorFlow tags a MetaGraph with that is to be served."""
_META_GRAPHS = 2 << 3 | 2  # SavedModel.meta_graphs
_META_INFO = 1 << 3 | 2  # MetaGraphDef.meta_info_def


def meta_graph_tags(path: Path, asked: Sequence[str]) -> Sequence[str]:
    """Return the tags of the MetaGraph to load.

    Args:
        path: the SavedModel's folder.
        asked: the tags that it must have; empty for the usual one.

    Returns:
        the tags asked for; else "serve" if that is there, or cannot be known; else those of the only one.

    Raises:
        ModelError: there is no such MetaGraph, or several and none to prefer.
    """
    sets = _tag_sets(path / "saved_model.pb")
    wanted = set(asked or [SERVE])
    if not sets or wanted in sets:
        return sorted(wanted)
    if not asked and len(sets) == 1:
        return sorted(sets[0])
    found = ", ".join("+".join(sorted(tags)) or "no tags" for tags in sets)
    raise ModelError(
        f"{path} has no MetaGraph with the tags {'+'.join(sorted(wanted))}; it has: {found} (tags in models.toml)"
    )


# --- private ------------------------------------------------------------------------------------------


def _tag_sets(file: Path) -> list[set[str]]:
    """Return every MetaGraph's tags; none where the file is not what it should be: TensorFlow says that better."""
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return [_tags(data, start, stop) for start, stop in _fields(data, 0, len(data), _META_GRAPHS)]
    except (OSError, ValueError, IndexError):
        return []


def _tags(data: mmap.mmap, start: int, stop: int) -> set[str]:
    for begin, end in _fields(data, start, stop, _META_INFO):
        return set(MetaGraphDef.MetaInfoDef.FromString(data[begin:end]).tags)
    return set()


def _fields(data: mmap.mmap, position: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield where the contents of a message's fields with this tag begin and end.

    Raises:
        ValueError, IndexError: that is no message.
    """
    while position < stop:
        tag, position = _varint(data, position)
        if tag & 7 == 0:
            _, position = _varint(data, position)
        elif tag & 7 == 2:
            length, position = _varint(data, position)
            if tag == wanted:
                yield position, position + length
            position += length
        else:
            raise ValueError(tag)


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError(shift)
