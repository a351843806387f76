"""TFRecord files: length, masked CRC-32C of it, payload, masked CRC-32C of that; again and again."""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


class Damaged(ValueError):
    """What stands at a place is no whole record.

    Attributes:
        position: where it begins, in bytes.
        torn: the file ends before the record does, as where its writer was stopped.
    """

    def __init__(self, position: int, *, torn: bool) -> None:
        super().__init__(f"damaged at byte {position}: not a whole TFRecord")
        self.position = position
        self.torn = torn


def framed(payload: bytes) -> bytes:
    """Return a payload as a record."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, struct.pack("<I", masked_crc(length)), payload, struct.pack("<I", masked_crc(payload))))


def payloads(file: BinaryIO, *, checked: bool = True) -> Iterator[bytes]:
    """Read the payloads of a file's records, from where it stands, one at a time.

    Args:
        file: opened for reading, in binary.
        checked: look at the checksums, too.

    Raises:
        Damaged: something else stands there.
    """
    position = file.tell()
    while header := file.read(_HEADER):
        if len(header) < _HEADER:
            raise Damaged(position, torn=True)
        length, length_crc = struct.unpack("<QI", header)
        if checked and length_crc != masked_crc(header[:8]):
            raise Damaged(position, torn=False)
        payload = _exactly(file, length)
        trailer = file.read(_TRAILER)
        if len(payload) < length or len(trailer) < _TRAILER:
            raise Damaged(position, torn=True)
        if checked and struct.unpack("<I", trailer)[0] != masked_crc(payload):
            raise Damaged(position, torn=False)
        yield payload
        position += _HEADER + length + _TRAILER


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of bytes, turned and shifted as TFRecords have it."""
    crc = _register(data) ^ 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# --- private ------------------------------------------------------------------------------------------

_HEADER, _TRAILER = 12, 4
_PIECE = 1 << 20
_SHORT = 48
"""Up to so many bytes, a loop over them takes less time than NumPy."""
_BLOCK = 512
_AT_ONCE = 64
"""Blocks that are looked up together: what that takes of memory is a quarter of a megabyte."""


def _exactly(file: BinaryIO, length: int) -> bytes:
    """Read so many bytes, or all that there are: a damaged length is not believed in memory."""
    pieces = []
    while length and (piece := file.read(min(length, _PIECE))):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, reflected
    return byte


_TABLE = tuple(map(_entry, range(256)))


def _register(data: bytes) -> int:
    """Return the register after all bytes, begun with ones."""
    if len(data) >= _SHORT:
        return _register_long(data)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _register_long(data: bytes) -> int:
    """Do the same block by block.

    What each byte of a block adds to the register depends on nothing but itself and its place, and so does what was in
    the register before, as if it were in the block's first four bytes. A register of ones is one of zeros whose first
    four bytes are inverted, and to that, zeros in front make no difference.
    """
    table, (one, two, three, four) = _contributions()
    padded = np.zeros(-(-len(data) // _BLOCK) * _BLOCK, np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF
    blocks = padded.reshape(-1, _BLOCK)
    crc = 0
    for place in range(0, len(blocks), _AT_ONCE):
        added = np.bitwise_xor.reduce(table[np.arange(_BLOCK), blocks[place : place + _AT_ONCE]], axis=1)
        for each in added.tolist():
            before = one[crc & 0xFF] ^ two[crc >> 8 & 0xFF] ^ three[crc >> 16 & 0xFF] ^ four[crc >> 24]
            crc = before ^ each
    return crc


@lru_cache(maxsize=1)
def _contributions() -> tuple[NDArray[np.uint32], Sequence[Sequence[int]]]:
    """Return what a byte adds to the register after its block, by its place and its value; the first four as lists."""
    last = np.array(_TABLE, np.uint32)
    table = np.empty((_BLOCK, 256), np.uint32)
    table[-1] = last
    for place in range(_BLOCK - 2, -1, -1):
        after = table[place + 1]
        table[place] = last[after & 0xFF] ^ (after >> 8)
    return table, table[:4].tolist()
