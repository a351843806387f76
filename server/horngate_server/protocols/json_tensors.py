"""Tensors in JSON, for every protocol that has them: nested or flat lists to elements, and elements to lists.

- BYTES are text; an element that is no UTF-8 is ``{"b64": "..."}``, its bytes in base64.
- Numbers that the tensor's datatype cannot hold are refused, and never become another number: 300 as UINT8, 1e39 as
  FP32. Only the digits that a float has not are lost.
- NaN and the infinities, which JSON has not, may come as strings or without quotes.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from itertools import chain
from math import inf, isfinite, isnan, nan
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from horngate_protos.datatypes import BYTES, DATATYPES, Datatype
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Data, numbers, strings
from horngate_server.protocols.strings import check_count

KNOWN = {each.name: each for each in (*DATATYPES, BYTES) if each.name != "BF16"}
"""What is taken. BF16 is not: JSON's numbers would have to be rounded."""


def flat(at: str, data: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Return the axes of nested lists, and their values in one list; no axes for a single value.

    Args:
        at: where they stand, in words.
        data: what `json_reader.read_json` made of them: numbers that follow each other may be one array.

    Raises:
        InvalidRequest: lists of unequal lengths.
    """
    if not isinstance(data, list):
        return (), [data]
    axes = []
    lists = [data]
    while True:
        values = list(chain.from_iterable(lists))
        kinds = set(map(type, values))
        lengths = set(map(_length if np.ndarray in kinds else len, lists))
        axes.append(max(lengths, default=0))
        if len(lengths) > 1 or (list in kinds and len(kinds) > 1):
            raise InvalidRequest(f"{at}: data in lists of unequal lengths; expected them as the shape says")
        if list not in kinds:
            return tuple(axes), values
        lists = values


def elements(at: str, datatype: Datatype, values: list[Any], *, encoded: bool = False) -> Data:
    """Return values as a tensor's elements.

    Args:
        at: where they stand, in words.
        datatype: the tensor's; one of `KNOWN`.
        values: as `flat` returns them.
        encoded: all strings are base64.

    Raises:
        InvalidRequest: values that are not the datatype's.
    """
    if datatype is BYTES:
        check_count(at, len(values))
        return [_string(at, value, encoded=encoded) for value in values]
    return _numbers(at, datatype, values)


def array(datatype: Datatype, data: Data) -> NDArray[np.generic]:
    """Return a tensor's numbers as an array of one axis; those of BF16 as the floats that they are."""
    found = np.frombuffer(numbers(data), datatype.numpy)
    return widen(found) if datatype.name == "BF16" else found


def widen(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return BF16's bits as the numbers that they are: each is the upper half of a float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def texts(data: Data, *, encoded: bool = False) -> list[Any]:
    """Return strings as JSON has them: text where they are, otherwise, or where all are to be, base64."""
    return [_text(each, encoded=encoded) for each in strings(data)]


def is_finite(values: NDArray[np.generic]) -> bool:
    """Whether JSON has all of these numbers."""
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def spelled(values: NDArray[np.generic]) -> list[Any]:
    """Return numbers with those that JSON has not as ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``."""
    return [value if isfinite(value) else _written(value) for value in _shortest(values)]


def bare(value: Any) -> bytes:
    """Write JSON with ``NaN``, ``Infinity`` and ``-Infinity`` as Python and TensorFlow Serving do, beyond JSON."""
    return json.dumps(value, default=_nested).encode()


def dump(value: Any) -> bytes:
    """Write JSON; arrays, whose numbers must be finite, with as many digits as their datatype has."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def kind_of(value: object) -> str:
    """Say what a value is, for an error's message."""
    if isinstance(value, np.ndarray):
        value = value.tolist()[0]
    return _KINDS.get(type(value)) or json.dumps(value)[:40]


# --- private ------------------------------------------------------------------------------------------

_KINDS: Mapping[type, str] = {str: "a string", list: "an array", dict: "an object"}
_NOT_FINITE: Mapping[str, float] = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}
_TYPES: Mapping[str, set[type]] = {"b": {bool}, "f": {int, float}, "i": {int}, "u": {int}}
"""By NumPy's kind of a datatype, what JSON has for its values."""


def _length(data: list[Any]) -> int:
    """Count the values of a list, whose arrays are many."""
    return sum(len(each) if type(each) is np.ndarray else 1 for each in data)


def _numbers(at: str, datatype: Datatype, values: list[Any]) -> bytes:
    """Return numbers as they lie in memory, none of them changed by more than a float's rounding."""
    kind = datatype.numpy.kind
    types = set(map(type, values))
    if np.ndarray in types:
        return b"".join(
            _array(at, datatype, each) if type(each) is np.ndarray else _numbers(at, datatype, [each])
            for each in values
        )
    if kind == "f" and str in types:
        values = [_NOT_FINITE.get(value, value) if type(value) is str else value for value in values]
        types = set(map(type, values))
    if not types <= _TYPES[kind]:
        wrong = next(value for value in values if type(value) not in _TYPES[kind])
        raise InvalidRequest(f"{at} has {kind_of(wrong)} among its data, which is not {datatype.name}'s")
    try:
        if datatype.numpy.itemsize == 1 and kind == "u":  # several times as fast as NumPy
            return bytes(values)
        made = np.array(values, np.float64 if kind == "f" else datatype.numpy)
        with np.errstate(over="raise"):
            return made.astype(datatype.numpy, copy=False).tobytes()
    except (OverflowError, FloatingPointError, ValueError) as error:
        raise InvalidRequest(
            f"{at} has {_outside(datatype, values)} among its data, which {datatype.name} cannot hold"
        ) from error


def _array(at: str, datatype: Datatype, given: NDArray[np.generic]) -> bytes:
    """Return numbers that were read as an array; what does not simply fit is looked at one by one."""
    kind = datatype.numpy
    if kind.kind == "f":
        given = given.astype(np.float64)
    elif not np.can_cast(given.dtype, kind):
        return _numbers(at, datatype, given.tolist())
    try:
        with np.errstate(over="raise"):
            return given.astype(kind).tobytes()
    except FloatingPointError:
        return _numbers(at, datatype, given.tolist())


def _outside(datatype: Datatype, values: list[Any]) -> str:
    """Return the first number that a datatype cannot hold."""
    low: float
    high: float
    if datatype.numpy.kind == "f":
        low, high = float(np.finfo(datatype.numpy.name).min), float(np.finfo(datatype.numpy.name).max)
    else:
        low, high = np.iinfo(datatype.numpy.name).min, np.iinfo(datatype.numpy.name).max
    return next(str(each)[:40] for each in values if -inf < each < low or high < each < inf)


def _string(at: str, value: Any, *, encoded: bool) -> bytes:
    """Return an element of BYTES."""
    match value:
        case str() if not encoded:
            return value.encode()
        case str(content):
            pass
        case {"b64": str(content), **rest} if not rest:
            pass
        case _:
            raise InvalidRequest(
                f'{at} has {kind_of(value)} among its data; expected strings, or {{"b64": "..."}} for bytes'
            )
    try:
        return b64decode(content, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"{at} has {content[:40]!r} among its data; expected base64: {error}") from error


def _shortest(values: NDArray[np.generic]) -> Sequence[Any]:
    """Return numbers as Python's, those of few bits without the digits that they have not."""
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        return [float(str(each)) for each in values.reshape(-1)]
    found: Sequence[Any] = values.reshape(-1).tolist()
    return found


def _nested(values: NDArray[np.generic]) -> Any:
    made = np.empty(values.size, object)
    made[:] = _shortest(values)
    return made.reshape(values.shape).tolist()


def _written(value: float) -> str:
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(element: bytes, *, encoded: bool) -> Any:
    if not encoded:
        try:
            return element.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": b64encode(element).decode()}
