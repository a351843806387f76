"""Inputs that a model may accept, guessed from its signature: a version is run before callers run it.

Nothing in a signature says which numbers, texts or sizes a model takes. So kinds of values are tried, the likely ones
first, and for axes of any length a few sizes; what the model refuses says only that the guess was wrong.
"""

import base64
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from horngate_protos.tensorflow_pb2 import Example
from horngate_server.core.model import Array
from horngate_server.core.signature import FREE, Feature, Signature, TensorSpec
from horngate_server.lifecycle.comparison import as_bfloat16

SIZES = (4, 8, 16, 32, 64, 128, 224, 256, 1, 2, 3, 5, 6, 7, 10, 12, 20, 48, 96, 100, 160, 299, 300, 384, 512)
"""Lengths of free axes, the cheap and likely ones first: image models want powers of two, or 224; others anything."""
RANKS = (2, 1, 3, 4)
"""Numbers of axes of a tensor that may have any."""
Rows = Sequence[Array]
"""One array per input of a signature, in its order."""


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to fill a signature's inputs.

    Attributes:
        signature: whose inputs.
        size: the length of free axes but the first.
        style: which kind of values.
        rank: how many axes inputs have that may have any number.
    """

    signature: Signature
    size: int
    style: str
    rank: int = 2

    def elements(self, rows: int) -> int:
        """Return how many elements so many rows have."""
        return sum(prod(self._shape(spec, rows)) for spec in self.signature.inputs)

    def draw(self, rows: int, seed: int = 0) -> Rows:
        """Return so many rows, all different where the values allow it: per input [rows, ...] or its fixed shape."""
        rng = np.random.default_rng([seed, *self.style.encode()])
        return [self._fill(spec, rows, rng) for spec in self.signature.inputs]

    def _shape(self, spec: TensorSpec, rows: int) -> tuple[int, ...]:
        axes = (rows, *(self.size,) * (self.rank - 1)) if spec.shape is None else spec.shape
        if spec.in_rows or spec.shape is None:
            axes = (rows, *axes[1:])
        return tuple(self.size if axis == FREE else axis for axis in axes)

    def _fill(self, spec: TensorSpec, rows: int, rng: np.random.Generator) -> Array:
        shape = self._shape(spec, rows)
        kind = "S" if spec.datatype.numpy.hasobject else _KINDS.get(spec.datatype.name[:2], "f")
        if kind == "S":
            texts = _TEXTS[self.style](spec, prod(shape), rng)
            array = np.empty(len(texts), object)
            array[:] = texts
            return array.reshape(shape)
        values: Array = _NUMBERS[kind, self.style](shape, rng)
        if spec.datatype.name == "BF16":
            return as_bfloat16(values)
        filled: Array = values.astype(spec.datatype.numpy)
        return filled


def guesses(signature: Signature) -> Iterator[Guess]:
    """Yield ways to fill a signature's inputs, the likely ones first."""
    open_axes = any(spec.shape is None or FREE in spec.shape[spec.in_rows :] for spec in signature.inputs)
    any_rank = any(spec.shape is None for spec in signature.inputs)
    ways = product(SIZES if open_axes else SIZES[:1], RANKS if any_rank else RANKS[:1], STYLES)
    for size, rank, style in ways:
        yield Guess(signature, size, style, rank)


STYLES = ("likely", "small", "ones", "other")
"""Kinds of values: what is usual for a datatype; small whole numbers; ones; and what else there is."""


# --- private ------------------------------------------------------------------------------------------

_KINDS = {"BO": "b", "UI": "u", "IN": "i", "CO": "c"}
"""By the first letters of a datatype's name."""

_Numbers = Callable[[tuple[int, ...], np.random.Generator], Array]


def _complex(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


_NUMBERS: dict[tuple[str, str], _Numbers] = {
    ("f", "likely"): lambda shape, rng: rng.standard_normal(shape),
    ("f", "small"): lambda shape, rng: rng.random(shape),
    ("f", "ones"): lambda shape, _: np.ones(shape),
    ("f", "other"): lambda shape, rng: rng.random(shape) * 255,
    ("c", "likely"): _complex,
    ("c", "small"): _complex,
    ("c", "ones"): lambda shape, _: np.ones(shape),
    ("c", "other"): lambda shape, _: np.zeros(shape),
    ("i", "likely"): lambda shape, rng: rng.integers(1, 10, shape),
    ("i", "small"): lambda shape, rng: rng.integers(0, 2, shape),
    ("i", "ones"): lambda shape, _: np.ones(shape),
    ("i", "other"): lambda shape, _: np.zeros(shape),
    ("u", "likely"): lambda shape, rng: rng.integers(0, 256, shape),
    ("u", "small"): lambda shape, rng: rng.integers(0, 2, shape),
    ("u", "ones"): lambda shape, _: np.ones(shape),
    ("u", "other"): lambda shape, rng: rng.integers(0, 10, shape),
    ("b", "likely"): lambda shape, rng: rng.integers(0, 2, shape),
    ("b", "small"): lambda shape, _: np.zeros(shape),
    ("b", "ones"): lambda shape, _: np.ones(shape),
    ("b", "other"): lambda shape, rng: rng.integers(0, 2, shape),
}

_WORDS = (
    "a",
    "good",
    "film",
    "the",
    "bad",
    "time",
    "not",
    "was",
    "great",
    "it",
    "is",
    "no",
    "way",
    "one",
    "day",
    "more",
)


def _texts(spec: TensorSpec, count: int, rng: np.random.Generator) -> list[bytes]:
    if spec.features:
        return [_example(spec.features, rng) for _ in range(count)]
    return [" ".join(rng.choice(_WORDS, rng.integers(1, 6))).encode() for _ in range(count)]


def _numerals(_: TensorSpec, count: int, rng: np.random.Generator) -> list[bytes]:
    return [str(number).encode() for number in rng.integers(0, 100, count)]


def _jpegs(_: TensorSpec, count: int, rng: np.random.Generator) -> list[bytes]:
    files = []
    for step in rng.integers(3, 100, count):
        file = bytearray(_JPEG)
        file[_JPEG_LIGHTNESS] = step
        files.append(bytes(file))
    return files


def _pngs(__: TensorSpec, count: int, rng: np.random.Generator) -> list[bytes]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    files = []
    for _ in range(count):
        lines = b"".join(b"\0" + bytes(line) for line in rng.integers(0, 256, (8, 8 * 3), dtype=np.uint8))
        header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
        files.append(b"\x89PNG\r\n\x1a\n" + chunks)
    return files


_TEXTS: dict[str, Callable[[TensorSpec, int, np.random.Generator], list[bytes]]] = {
    "likely": _texts,
    "small": _jpegs,
    "ones": _numerals,
    "other": _pngs,
}

_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEBLAEsAAD/2wBDABQODxIPDRQSEBIXFRQYHjIhHhwcHj0sLiQySUBMS0dARkVQWnNiUFVtVkVGZIhlbXd7gYKBTmCNl4x9"
    "lnN+gXz/2wBDARUXFx4aHjshITt8U0ZTfHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHz/wAARCAAIAAgD"
    "ASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAL/xAAcEAACAgIDAAAAAAAAAAAAAAAAAQIRAwQFEkH/xAAVAQEBAAAAAAAAAAAAAAAAAAAC"
    "A//EABoRAAICAwAAAAAAAAAAAAAAAAEDAAIEEUH/2gAMAwEAAhEDEQA/AL1eLhij2nSSVu/EACDsllWGo5EhNWDZn//Z"
)
"""An image of 8x8 pixels in colour."""
_JPEG_LIGHTNESS = 25
"""The place of its first quantiser: another one makes it lighter or darker as a whole."""


def _example(features: Sequence[Feature], rng: np.random.Generator) -> bytes:
    """Return a serialized tf.Example that has all of these."""
    example = Example()
    for each in features:
        size = 1 if each.size == FREE else each.size
        made = example.features.feature[each.name]
        if each.tensorflow == 1:
            made.float_list.value.extend(rng.standard_normal(size))
        elif each.tensorflow == 9:
            made.int64_list.value.extend(map(int, rng.integers(1, 10, size)))
        else:
            made.bytes_list.value.extend(word.encode() for word in rng.choice(_WORDS, size))
    return example.SerializeToString()
