"""What client and server write by hand of protobuf's wire format."""


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


# --- private ------------------------------------------------------------------------------------------

_ONE_BYTE = tuple(bytes([number]) for number in range(0x80))
