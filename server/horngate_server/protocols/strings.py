"""Tensors of strings (BYTES) on the wire: a length of four bytes, little-endian, before each element."""

import struct
from collections.abc import Iterator, Sequence

from horngate_server.core.errors import InvalidRequest
from horngate_server.protocols.wire import LENGTH_DELIMITED, MOST_FIELDS, NotUsual, varint_at

MOST_STRINGS = 1 << 20
"""Strings in one request. Each is an object of 33 bytes and its content, from four bytes of a message and up; so many
take 60 MB, and splitting them holds up other requests for a fraction of a second."""


def split(name: str, raw: bytes | memoryview, shape: Sequence[int], count: int) -> list[bytes]:
    """Return the elements of a tensor of strings.

    Args:
        name: the input's.
        raw: its raw contents.
        shape: its axes.
        count: their product, how many elements there must be; no more than `MOST_STRINGS`.

    Raises:
        InvalidRequest: a length is cut off or goes past the end; there are fewer strings, or bytes behind the last one.
    """
    data = bytes(raw)  # slices of bytes are the elements; slices of a view would have to be copied again
    at = 0
    elements: list[bytes] = []
    append = elements.append
    try:
        for _ in range(count):
            start = at + 4
            at = start + _length(data, at)[0]
            append(data[start:at])  # one that goes past the end is found by the next length, or by the last look
    except struct.error:
        at = -1
    if at != len(data):
        raise _wrong(name, data, shape, count)
    return elements


def pack(elements: Sequence[bytes]) -> bytes:
    """Return the raw contents of a tensor of strings."""
    return b"".join([len(each).to_bytes(4, "little") + each for each in elements])


def check_count(at: str, count: int) -> None:
    """Refuse too many strings.

    Args:
        at: whose they are, in words.
        count: how many.

    Raises:
        InvalidRequest: there are more than `MOST_STRINGS`.
    """
    if count > MOST_STRINGS:
        raise InvalidRequest(f"{at} has {count} strings; expected at most {MOST_STRINGS} in a request")


def string_bytes(message: bytes, path: Sequence[int]) -> int:
    """Return the bytes of all strings in a message that is not parsed yet: as objects they take hardly more.

    Args:
        message: any message.
        path: the tags on the way to the strings: those of fields that are messages, the last one the strings' own.

    Returns:
        0 where the message is written in another way than everybody writes it, or has many fields beside the strings.

    Raises:
        InvalidRequest: there are more than `MOST_STRINGS`.
    """
    spans = [(0, len(message))]
    count = total = 0
    try:
        for tag in path[:-1]:
            spans = list(_inside(message, spans, tag, MOST_FIELDS))
        for start, stop in _inside(message, spans, path[-1], len(message)):
            count += 1
            total += stop - start
            if count > MOST_STRINGS:
                check_count("the request", count)
    except (IndexError, NotUsual):
        return 0
    return total


# --- private ------------------------------------------------------------------------------------------

_VARINT = 0
_length = struct.Struct("<I").unpack_from


def _inside(message: bytes, spans: Sequence[tuple[int, int]], wanted: int, most: int) -> Iterator[tuple[int, int]]:
    """Find the fields with a tag in some messages that lie in one: where their contents begin and end.

    Raises:
        NotUsual: more than ``most`` of them, more than `MOST_FIELDS` others, or what protobuf does not write.
        IndexError: the last one has no end.
    """
    found = others = 0
    for start, end in spans:
        position = start
        while position < end:
            tag = message[position]
            length, content = message[position + 1], position + 2
            if length > 0x7F:
                length, content = varint_at(message, position + 1)
            position = content + length if tag & 7 == LENGTH_DELIMITED else content
            if tag == wanted:
                found += 1
                yield content, position
            elif tag > 0x7F or tag & 7 not in {_VARINT, LENGTH_DELIMITED}:
                raise NotUsual
            else:
                others += 1
            if found > most or others > MOST_FIELDS:
                raise NotUsual
        if position != end:
            raise NotUsual


def _wrong(name: str, data: bytes, shape: Sequence[int], count: int) -> InvalidRequest:
    """Return what is wrong with raw contents that are not so many strings."""
    at = 0
    for place in range(count):
        left = len(data) - at
        if not left:
            return InvalidRequest(
                f"input {name!r} has {place} strings; expected those of the shape {list(shape)}, each behind its length"
            )
        if left < 4:
            return InvalidRequest(
                f"input {name!r}: string {place} begins with {left} bytes; expected a length of four bytes before each"
            )
        [length] = _length(data, at)
        if length > left - 4:
            return InvalidRequest(
                f"input {name!r}: string {place} has a length of {length} bytes; expected at most the {left - 4} that "
                "are left"
            )
        at += 4 + length
    return InvalidRequest(
        f"input {name!r} has {len(data) - at} bytes behind its last string; expected {count} strings and nothing else "
        f"for the shape {list(shape)} of BYTES"
    )
