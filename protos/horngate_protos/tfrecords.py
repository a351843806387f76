"""TFRecord files: length, masked CRC-32C of it, payload, masked CRC-32C of that; again and again."""

import struct
from collections.abc import Iterator
from math import isqrt
from typing import BinaryIO

import numpy as np


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
_LONG = 4096
"""From so many bytes on, NumPy takes less time than a loop over them."""


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
_TABLE_ARRAY = np.array(_TABLE, np.uint32)


def _register(data: bytes) -> int:
    """Return the register after all bytes, begun with ones."""
    if len(data) >= _LONG:
        return _register_long(data)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _register_long(data: bytes) -> int:
    """Do the same for parts of equal length side by side, and put them together.

    A register that begins with ones equals one of zeros whose first four bytes are inverted, and to that, zeros in
    front make no difference. What a register becomes by a part's length of zeros is linear in its bits: 32 more
    columns, each with one bit set, show what becomes of each.
    """
    parts = max(8, isqrt(len(data)))
    length = -(-len(data) // parts)
    padded = np.zeros(parts * length, np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF
    columns = np.zeros((length, parts + 32), np.uint8)
    columns[:, :parts] = padded.reshape(parts, length).T
    registers = np.zeros(parts + 32, np.uint32)
    registers[parts:] = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for column in columns:
        registers = _TABLE_ARRAY[(registers ^ column) & 0xFF] ^ (registers >> 8)
    bits = registers[parts:].tolist()
    crc = 0
    for part in registers[:parts].tolist():
        moved = part
        while crc:
            low = crc & -crc
            moved ^= bits[low.bit_length() - 1]
            crc ^= low
        crc = moved
    return crc
