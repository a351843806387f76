"""Structure-aware mutations: a valid protobuf message in, one that is wrong in a field, a length or a nesting out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from horngate_protos.wire import varint

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
NUMBERS = (0, 1, 2, 3, 27, 28, 127, 128, 255, 256, 65536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
LENGTHS = (0, 1, 7, 8, 128, 4096)
VALUES = (
    "null", "true", "0", "-1", "255", "2147483648", "9223372036854775808", "18446744073709551616", "1" + "0" * 400,
    "0.5", "1e39", "1e999", "NaN", "-Infinity", '""', '"NaN"', '"-Infinity"', '"x"', '"words"', '"/w=="', '"\\ud800"',
    '"\u00e9"', '"BYTES"', '"FP32"', '"base64"', "[]", "[1]", "{}", '{"b64": "/w=="}',
)  # fmt: skip
"""What a value of JSON may become, as JSON."""
DEPTH = 6


@dataclass(slots=True)
class Field:
    """One field of a message: a number, a leaf's bytes, or a message of its own."""

    number: int
    wire: int
    value: "int | bytes | list[Field]"


def mutate(message: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Change a message in one to four places; ``others`` lend it fields."""
    fields = parse(message)
    if fields is None:
        return damage(message, random)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _change(fields, random, others)
    mutated = write(fields)
    return damage(mutated, random) if random.random() < 0.15 else mutated


def damage(message: bytes, random: Random) -> bytes:
    """Flip, cut or insert bytes without a thought for structure."""
    data = bytearray(message)
    kind = random.randrange(3)
    place = random.randrange(len(data) + 1)
    if kind == 0 and data:
        data[place % len(data)] ^= 1 << random.randrange(8)
    elif kind == 1:
        del data[place : place + random.randrange(1, 9)]
    else:
        data[place:place] = random.randbytes(random.randrange(1, 9))
    return bytes(data)


def mutate_json(body: bytes, random: Random) -> bytes:
    """Change a value somewhere in a JSON body, one to three times; now and then its bytes."""
    try:
        tree = [json.loads(body)]
    except (ValueError, RecursionError):
        return damage(body, random)
    for _ in range(random.choice((1, 1, 2, 3))):
        place: Any = tree
        while True:
            key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or random.random() < 0.2:
                break
            place = place[key]
        place[key] = random.choice((json.loads(random.choice(VALUES)), [place[key]], {"b64": place[key]}))
    changed = json.dumps(tree[0], ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.1:
        changed = changed.replace(b"0.5", b"1e999")
    return damage(changed, random) if random.random() < 0.15 else changed


def parse(message: bytes, depth: int = DEPTH) -> list[Field] | None:
    """Read fields; None where the bytes are no message."""
    fields = []
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        wire, number = tag & 7, tag >> 3
        if place < 0 or not number:
            return None
        if wire == VARINT:
            value, place = _number(message, place)
            if place < 0:
                return None
            fields.append(Field(number, wire, value))
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(wire, -1)
        if wire == BYTES:
            size, place = _number(message, place)
        if size < 0 or place < 0 or place + size > len(message):
            return None
        content = message[place : place + size]
        place += size
        inside = parse(content, depth - 1) if wire == BYTES and depth and content else None
        fields.append(Field(number, wire, inside or content))
    return fields


def write(fields: Sequence[Field]) -> bytes:
    """Write fields as a message."""
    out = bytearray()
    for field in fields:
        out += varint(field.number << 3 | field.wire)
        if isinstance(field.value, int):
            out += varint(field.value)
            continue
        content = field.value if isinstance(field.value, bytes) else write(field.value)
        if field.wire == BYTES:
            out += varint(len(content))
        out += content
    return bytes(out)


# --- private ------------------------------------------------------------------------------------------


def _change(fields: list[Field], random: Random, others: Sequence[bytes]) -> None:
    """Change one field somewhere in the tree."""
    while fields:
        field = random.choice(fields)
        if not isinstance(field.value, list) or random.random() < 0.3:
            break
        fields = field.value
    kind = random.randrange(9)
    if not fields or kind == 0:
        fields.insert(random.randint(0, len(fields)), _new(random))
        return
    place = random.randrange(len(fields))
    field = fields[place]
    match kind:
        case 1:
            del fields[place]
        case 2:
            fields.insert(random.randint(0, len(fields)), Field(field.number, field.wire, field.value))
        case 3:
            random.shuffle(fields)
        case 4:
            field.number = random.choice((field.number + 1, max(1, field.number - 1), random.randrange(1, 20), 2**28))
        case 5:
            lent = parse(random.choice(others)) if others else None
            if lent:
                fields[place] = random.choice(lent)
        case _:
            _change_value(field, random)


def _change_value(field: Field, random: Random) -> None:
    if isinstance(field.value, int):
        field.value = random.choice((*NUMBERS, (field.value + 1) % 2**64, (field.value - 1) % 2**64))
        return
    content = field.value if isinstance(field.value, bytes) else write(field.value)
    if field.wire != BYTES:
        field.value = random.randbytes(len(content))
        return
    match random.randrange(7):
        case 6:  # a length of four bytes, as strings have before them
            place = random.randrange(len(content) + 1)
            length = random.choice(NUMBERS + LENGTHS) & 0xFFFFFFFF
            field.value = content[:place] + length.to_bytes(4, "little") + content[place + random.choice((0, 4)) :]
        case 0:
            field.value = content[: random.randrange(len(content) + 1)]
        case 1:
            field.value = content + random.randbytes(random.choice(LENGTHS[:4]))
        case 2:
            field.value = random.randbytes(len(content))
        case 3:
            field.value = content * random.choice((2, 3, 50))
        case 4:
            field.value = b""
        case _:
            field.value = b"".join(varint(random.choice(NUMBERS)) for _ in range(random.randrange(1, 12)))


def _new(random: Random) -> Field:
    number = random.randrange(1, 19)
    if random.random() < 0.5:
        return Field(number, VARINT, random.choice(NUMBERS))
    return Field(number, BYTES, random.randbytes(random.choice(LENGTHS)))


def _number(message: bytes, place: int) -> tuple[int, int]:
    """Read a varint; return it and where it ends, which is negative where it does not."""
    number = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (2**64 - 1), place
        shift += 7
    return 0, -1
