"""Protobuf's wire format, where a request's own bytes are worth more than an object of them.

Objects are large: a field of two bytes can cost hundreds in memory. So what is made into objects is bounded here, and
what is not, tensors as bytes, by the message's size alone.
"""

from horngate_protos.wire import varint
from horngate_server.errors import InvalidRequest

HEAD_BYTES = 1 << 16
"""What a request may say beside its tensors' bytes."""
MOST_FIELDS = 1024
"""Fields of one message that are looked at one by one."""
PARSED_BYTES = 4 << 20
"""A message with values one by one, which protobuf's parser makes objects of."""


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


def field(number: int, content: bytes) -> bytes:
    """Write a length-delimited field with a number below 16."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content
