"""Parameters of a Python type that cannot be meant are refused in words, before anything is sent or tried.

Each function returns nothing; it raises a ConversionError that says what was expected and what came.
"""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

from horngate_client.errors import ConversionError


def text(name: str, value: object, like: str) -> None:
    """Refuse what is no string.

    Args:
        name: the parameter's.
        value: what was given.
        like: an example.
    """
    if not isinstance(value, str):
        raise _refused(name, f"text, such as {like}", value)


def optional_path(name: str, value: object) -> None:
    """Refuse what is neither None nor the path of a file."""
    if not isinstance(value, str | Path | None):
        raise _refused(name, "the path of a file, or None", value)


def number(name: str, value: object, like: str) -> None:
    """Refuse what is no real number, True and False among it; see `text`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _refused(name, f"a number, such as {like}", value)


def whole(name: str, value: object, like: str) -> None:
    """Refuse what is no whole number; see `text`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _refused(name, f"a whole number, such as {like}", value)


def flags(**values: object) -> None:
    """Refuse what is neither True nor False: the text "no" would count as yes."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise _refused(name, "True or False", value)


def kind(name: str, value: object, kinds: type | tuple[type, ...], expected: str) -> None:
    """Refuse what is none of some types.

    Args:
        name: the parameter's.
        value: what was given.
        kinds: the types.
        expected: what they are, in words.
    """
    if not isinstance(value, kinds):
        raise _refused(name, expected, value)


def texts(name: str, value: object, like: str) -> None:
    """Refuse what is no list of strings; a single string, whose items are its letters, as well. See `text`."""
    if (
        isinstance(value, str | bytes)
        or not isinstance(value, Sequence)
        or not all(isinstance(item, str) for item in value)
    ):
        raise _refused(name, f"a list of texts, such as {like}", value)


def inputs(value: object) -> None:
    """Refuse what is no mapping of names to arrays."""
    if not isinstance(value, Mapping):
        raise _refused("inputs", 'arrays by the names of inputs, as in infer({"x": array}); model() shows them', value)
    for key in value:
        if not isinstance(key, str):
            raise _refused("the name of an input", 'text, as in infer({"x": array})', key)


# --- private ------------------------------------------------------------------------------------------------


def _refused(name: str, expected: str, value: object) -> ConversionError:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        came = f"an array, {dtype} {list(shape)}"
    else:
        shown = repr(value)
        came = f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__})"
    return ConversionError(f"{name} is {expected}; got {came}")
