"""Protobuf's wire format, where a request's own bytes are worth more than an object of them."""


def varint(number: int) -> bytes:
    """Encode a length (protobuf's base-128 varint)."""
    if number < 0x80:
        return _ONE_BYTE[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """Write a length-delimited field with a number below 16."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


# --- private ------------------------------------------------------------------------------------------

_ONE_BYTE = tuple(bytes([number]) for number in range(0x80))
