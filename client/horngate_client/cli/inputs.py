"""What a user gives of a model's inputs: .npz, .npy, JSON, text, pictures; first read, then made the model's arrays."""

import io
import json
import sys
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile

from horngate_client import images
from horngate_client.errors import ConversionError
from horngate_client.settings import Several
from horngate_client.signature import ModelMetadata, TensorSpec

STDIN = "-"
_JSON = (".json", ".jsonl", ".ndjson")
_ZIP, _NUMPY = b"PK\x03\x04", b"\x93NUMPY"


@dataclass(frozen=True, slots=True)
class Given:
    """What one file holds.

    Attributes:
        name: the input that it is for; None where the user does not say.
        file: where it comes from.
        content: arrays by input name (.npz), one array (.npy), `Json`, or bytes where it is none of these.
    """

    name: str | None
    file: str
    content: Any


class Json(NamedTuple):
    """A value that JSON stands for."""

    value: Any


def add_option(parser: Any, summary: str) -> None:
    """Add ``--input`` to a parser, or to a group of one."""
    parser.add_argument("--input", action=Several, metavar="[NAME=]FILE", help=f"{summary}; see below")


def read(texts: Sequence[str]) -> list[Given]:
    """Read the files of ``FILE`` and ``NAME=FILE``; ``-`` is standard input.

    Raises:
        ConversionError: one cannot be read, or is not what it is called.
    """
    return [_read(text) for text in texts]


def bind(given: Sequence[Given], model: ModelMetadata, *, resize: bool = False) -> dict[str, Any]:
    """Return values by input name, as ``infer`` takes them.

    Args:
        given: what was read.
        model: what takes it.
        resize: scale pictures to the model's size.

    Raises:
        ConversionError: it cannot be told what is for which input, or a row lacks one.
    """
    specs = {spec.name: spec for spec in model.inputs}
    parts: dict[str, list[Any]] = {}
    for each in given:
        for name, value in _values(each, specs, resize=resize):
            parts.setdefault(name, []).append(_stacked(value, specs[name]) if name in specs else value)
    return {name: values[0] if len(values) == 1 else _joined(specs[name], values) for name, values in parts.items()}


# --- private: from files ------------------------------------------------------------------------------------


def _read(text: str) -> Given:
    name, equals, file = text.partition("=")
    if not equals or Path(text).exists():
        name, file = "", text
    try:
        data = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as exc:
        raise ConversionError(f"{file} cannot be read: {exc.strerror or exc}") from exc
    suffix = Path(file).suffix.lower()
    content: Any = data
    if data.startswith((_ZIP, _NUMPY)) or suffix in (".npz", ".npy"):
        content = _numpy(file, data)
        if name and isinstance(content, dict):
            raise ConversionError(f"{file} holds arrays by their names: give it without {name}=")
    elif file == STDIN or suffix in _JSON:
        content = Json(_json(file, data))
    return Given(name or None, file, content)


def _numpy(file: str, data: bytes) -> Any:
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(loaded, NpzFile):
            return loaded
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, BadZipFile) as exc:
        hint = "; save strings as an array of the type S or U" if "bject array" in str(exc) else ""
        raise ConversionError(f"{file} cannot be read as .npz or .npy: {exc}{hint}") from exc


def _json(file: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as exc:  # UnicodeDecodeError is one
        lines = [line for line in data.splitlines() if line.strip()]
        try:
            return [json.loads(line) for line in lines] if len(lines) > 1 else json.loads(data)
        except ValueError:
            raise ConversionError(f"{file} is neither .npz, .npy nor JSON: {exc}") from exc


# --- private: to inputs -------------------------------------------------------------------------------------


def _values(given: Given, specs: Mapping[str, TensorSpec], *, resize: bool) -> Iterator[tuple[str, Any]]:
    """Yield what is given for each input."""
    match given.content:
        case dict():
            yield from given.content.items()
        case Json(value) if given.name is None and _is_object(value):
            yield from ((name, _decoded(each)) for name, each in value.items())
        case Json(value) if given.name is None and isinstance(value, list) and value and all(map(_is_object, value)):
            yield from _columns(value, specs)
        case _:
            spec = _meant(given, specs)
            yield spec.name, _value(given, spec, resize=resize)


def _columns(rows: Sequence[Mapping[str, Any]], specs: Mapping[str, TensorSpec]) -> Iterator[tuple[str, list[Any]]]:
    """Turn rows into columns."""
    names = dict.fromkeys([*specs, *(name for row in rows for name in row)])
    for number, row in enumerate(rows):
        for name in names:
            if name not in row:
                raise ConversionError(f"row {number} lacks {name!r}; it has {', '.join(row) or 'nothing'}")
    for name in names:
        column = [_decoded(row[name]) for row in rows]
        whole = name in specs and not specs[name].in_rows
        if whole and len(rows) > 1:
            raise ConversionError(f"{specs[name]} has no axis of rows: send one object at a time")
        yield name, column[0] if whole else column


def _meant(given: Given, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    takes = f"the model takes {', '.join(map(str, specs.values())) or 'nothing'}"
    if given.name is None:
        if len(specs) != 1:
            named = ", ".join(f"{json.dumps(name)}: ..." for name in specs)
            how = f"write {{{named}}}" if isinstance(given.content, Json) else f"write --input NAME={given.file}"
            raise ConversionError(f"{given.file} does not say which input it is for: {how}; {takes}")
        return next(iter(specs.values()))
    if given.name not in specs:
        raise ConversionError(f"the model has no input {given.name!r}; {takes}")
    return specs[given.name]


def _value(given: Given, spec: TensorSpec, *, resize: bool) -> Any:
    """Return what one file holds for one input."""
    match given.content:
        case Json(value):
            return _decoded(value)
        case bytes(data) if spec.datatype == "BYTES":
            return data.decode(errors="surrogateescape").splitlines() if given.file.endswith(".txt") else [data]
        case bytes() if given.file != STDIN and (wanted := images.ImageInput.of_tensor(spec)):
            return images.convert(given.file, wanted, resize=resize)
        case bytes():
            raise ConversionError(f"{given.file} is no .npz, .npy or .json, which alone can hold {spec}")
        case array:
            return array


def _stacked(value: Any, spec: TensorSpec) -> Any:
    """Return a value as the batch that it stands for: as it is, or as one row, or as a column of single values."""
    try:
        shape = np.shape(value)
    except ValueError:  # ragged: whoever converts it says so
        return value
    if spec.fits(shape) or not spec.in_rows:
        return value
    if spec.fits((1, *shape)):
        return [value]
    if spec.shape[1:] == (1,) and len(shape) < 2:
        return [[each] for each in (value if shape else [value])]
    return value


def _joined(spec: TensorSpec, values: Sequence[Any]) -> Any:
    if not spec.in_rows:
        raise ConversionError(f"{spec.name} is given several times, and {spec} has no axis of rows to join them along")
    try:
        return np.concatenate([np.asarray(each, object if spec.datatype == "BYTES" else None) for each in values])
    except ValueError as exc:
        raise ConversionError(f"what is given for {spec.name} cannot be joined: {exc}") from exc


def _is_object(value: Any) -> bool:
    """A JSON object, but not one that stands for bytes."""
    return isinstance(value, dict) and value.keys() != {"b64"}


def _decoded(value: Any) -> Any:
    """Return a JSON value with the bytes that ``{"b64": "..."}`` stands for."""
    match value:
        case list():
            return [_decoded(each) for each in value]
        case {"b64": str(text)}:
            try:
                return b64decode(text, validate=True)
            except NoBase64 as exc:
                raise ConversionError(f"{text[:40]!r} is no base64: {exc}") from exc
        case dict():
            raise ConversionError(f"{json.dumps(value)[:60]} stands where a value was expected")
        case _:
            return value
