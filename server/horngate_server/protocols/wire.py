"""Protobuf's wire format, where a request's own bytes are worth more than an object of them.

Objects are large: a field of two bytes can cost hundreds in memory. So what is made into objects is bounded here, and
what is not, tensors as bytes, by the message's size alone.
"""

from collections.abc import Sequence
from math import prod

from horngate_protos.wire import varint
from horngate_server.core.errors import InvalidRequest

HEAD_BYTES = 1 << 16
"""What a request may say beside its tensors' bytes."""
MOST_FIELDS = 1024
"""Fields of one message that are looked at one by one: inputs, outputs, parameters."""
PARSED_BYTES = 4 << 20
"""A message with values one by one, which protobuf's parser makes objects of."""

LENGTH_DELIMITED = 2
"""The wire type of bytes, strings, messages and packed lists."""
LONGEST_AXIS = (1 << 31) - 1
"""TensorFlow's operations count in 32 bits, and no message could hold more elements."""
MOST_AXES = 64
"""NumPy has no arrays with more."""


class NotUsual(Exception):
    """Legal, perhaps, but nobody sends it: protobuf's own parser says what it means."""


def varint_at(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """Read a number of at most 42 bits; return it and where it ends.

    Raises:
        NotUsual: it is longer.
        IndexError: the message ends in the midst of it.
    """
    number = shift = 0
    while True:
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return number, position
        shift += 7
        if shift > 35:
            raise NotUsual


def check_head(length: int) -> None:
    """Refuse a header that is no header.

    Raises:
        InvalidRequest: it is longer than `HEAD_BYTES`.
    """
    if length > HEAD_BYTES:
        raise InvalidRequest(f"{length} bytes beside the tensors' contents; expected at most {HEAD_BYTES}")


def check_parsed(length: int, instead: str) -> None:
    """Refuse a message that would become too many objects.

    Args:
        length: the message's, in bytes.
        instead: the field that takes tensors as bytes.

    Raises:
        InvalidRequest: it is longer than `PARSED_BYTES`.
    """
    if length > PARSED_BYTES:
        raise InvalidRequest(
            f"{length} bytes of values in lists, or of fields in an unusual order; expected at most {PARSED_BYTES}: "
            f"larger tensors travel in {instead}"
        )


def check_fields(count: int) -> None:
    """Refuse a message of many fields: each would become an object, and one of two bytes costs as much as any.

    Args:
        count: its fields, or as many as were counted.

    Raises:
        InvalidRequest: there are more than `MOST_FIELDS`.
    """
    if count > MOST_FIELDS:
        raise InvalidRequest(f"more than {MOST_FIELDS} inputs, outputs or parameters; expected at most so many")


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Refuse axes that no tensor can have, before anything is computed with them.

    Args:
        name: the input's.
        shape: its axes as sent.

    Raises:
        InvalidRequest: an axis that is negative or longer than `LONGEST_AXIS`, more than `MOST_AXES` of them, or more
            elements than that, where an axis of length 0 is taken for 1: what a model makes of the others is no less.
    """
    if len(shape) > MOST_AXES:
        raise InvalidRequest(f"input {name!r} has {len(shape)} axes; expected at most {MOST_AXES}")
    if any(not 0 <= axis <= LONGEST_AXIS for axis in shape):
        raise InvalidRequest(f"input {name!r} has shape {list(shape)}; expected axes from 0 to {LONGEST_AXIS}")
    if prod(axis or 1 for axis in shape) > LONGEST_AXIS:
        raise InvalidRequest(
            f"input {name!r} has shape {list(shape)}; expected a product of its axes of at most {LONGEST_AXIS}"
        )


def field(number: int, content: bytes) -> bytes:
    """Write a length-delimited field with a number below 16."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content
