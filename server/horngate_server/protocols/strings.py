"""Tensors of strings (BYTES) on the wire: a length of four bytes, little-endian, before each element."""

from horngate_server.errors import InvalidRequest

MOST_STRINGS = 1 << 20
"""Strings in one request. Each is an object of 33 bytes and its content, from four bytes of a message and up; so many
take 60 MB, and splitting them holds up other requests for a fraction of a second."""


def split(name: str, raw: bytes | memoryview, most: int = MOST_STRINGS) -> list[bytes]:
    """Return the elements of a tensor of strings.

    Args:
        name: the input's.
        raw: its raw contents.
        most: how many elements there may be.

    Raises:
        InvalidRequest: a length is cut off, or goes past the end; there are too many elements.
    """
    data = bytes(raw)  # slices of bytes are the elements; slices of a view would have to be copied again
    end = len(data)
    at = 0
    elements: list[bytes] = []
    while at < end:
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        if at > end or len(elements) == most:
            raise _wrong(name, data, start - 4, elements, most)
        elements.append(data[start:at])
    return elements


def pack(elements: list[bytes]) -> bytes:
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


# --- private ------------------------------------------------------------------------------------------


def _wrong(name: str, data: bytes, at: int, elements: list[bytes], most: int) -> InvalidRequest:
    """Return what is wrong with the element whose length is expected at a place."""
    if len(elements) == most:
        return InvalidRequest(f"input {name!r} has too many strings; expected at most {MOST_STRINGS} in a request")
    place = f"input {name!r}: string {len(elements)}"
    left = len(data) - at
    if left < 4:
        return InvalidRequest(f"{place} begins with {left} bytes; expected a length of four bytes before each string")
    length = int.from_bytes(data[at : at + 4], "little")
    return InvalidRequest(f"{place} has a length of {length} bytes; expected at most the {left - 4} that are left")
