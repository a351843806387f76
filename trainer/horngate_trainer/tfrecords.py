"""TFRecords of tf.train.Example, an image and a label each; they are indexed once, and read as they are needed."""

import hashlib
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from horngate_trainer import pictures, pixels, quiet
from horngate_trainer.errors import DataError, first_line
from horngate_trainer.image_folder import TESTS, TRAIN
from horngate_trainer.memory import Size
from horngate_trainer.pictures import Picture
from horngate_trainer.pixels import Images
from horngate_trainer.streamed import Streamed

IMAGE, LABEL = ("image/encoded", "image_raw", "image"), ("image/class/label", "label")
HEIGHT, WIDTH = ("image/height", "height"), ("image/width", "width")
CHANNELS = ("image/channels", "image/depth", "channels", "depth")
"""The names of features, as TensorFlow's own data sets and examples have them; the first that is there is taken."""
_NAME = re.compile(r".+\.tfrecords?(-\d+-of-\d+)?(\.gz)?|(train|test|val|validation|valid)[-_]\d+-of-\d+")


@dataclass(frozen=True, slots=True)
class Features:
    """Which features have image and label; None: those of the usual names."""

    image: str | None = None
    label: str | None = None


def files(path: Path) -> Sequence[Path]:
    """Return the TFRecord files of a folder, and of ``train``, ``test`` ... in it."""
    folders = [path, *(path / name for name in (TRAIN, *TESTS) if (path / name).is_dir())]
    return sorted(each for folder in folders for each in folder.iterdir() if _NAME.fullmatch(each.name))


def load(
    path: Path, before: Callable[[Size], None], size: tuple[int, int] | None, features: Features
) -> tuple[dict[str, Any], Sequence[str] | None]:
    """Index a folder of TFRecords; each is read once, its checksums too, and nothing of it is kept but where it is.

    Args:
        path: the folder.
        before: told how large the data are; an exception that it raises passes through.
        size: height and width that images are brought to; None: all must have one size.
        features: which have image and label.

    Returns:
        ``x_train`` and ``x_test`` (`Streamed`), ``y_train`` and ``y_test``; the classes' names, if labels are texts.

    Raises:
        DataError: there is nothing for training or for the test, a record is damaged, has no image or label, or sizes
            differ.
        TrainerError: Pillow, which reads images, is not installed.
    """
    quiet.require("TFRecords of images", "PIL", otherwise="give an .npz file")
    parts = {"train": _Part(), "test": _Part()}
    with quiet.imports():
        import tensorflow  # noqa: ICN001, PLC0415 - seconds; only TFRecords need it before a training
    for file in files(path):
        _index(tensorflow, file, parts[_part_of(file, path)], features)
    for name, part in parts.items():
        if not part.labels:
            raise DataError(
                f"{path} has no records for the part {name!r}: files are called train and test (or val, validation), "
                f"as train-00000-of-00002.tfrecord and test.tfrecord, or lie in folders of these names"
            )
    shape = pictures.common_shape(parts["test"].shapes | parts["train"].shapes, size)
    before(
        Size(
            train=len(parts["train"].labels),
            test=len(parts["test"].labels),
            image_shape=shape,
            classes=len(set(parts["train"].labels)),
            loading_bytes=0,
            streamed=True,
        )
    )
    labels, names = pixels.labels(str(path), {f"y_{name}": np.array(part.labels) for name, part in parts.items()})
    images = {f"x_{name}": part.streamed(shape, features) for name, part in parts.items()}
    return {**images, **labels}, names


# --- private ---------------------------------------------------------------------------------------------------------

_HEAD_BYTES, _TAIL_BYTES = 12, 4
"""Before a record: its length and the length's checksum; after it: its own checksum."""


@dataclass(slots=True)
class _Part:
    """Where the records of a part are: for each the number of its file, the offset of its content, and its length."""

    files: list[Path] = field(default_factory=list)
    file: "array[int]" = field(default_factory=lambda: array("i"))
    offset: "array[int]" = field(default_factory=lambda: array("q"))
    length: "array[int]" = field(default_factory=lambda: array("q"))
    labels: list[int | bytes] = field(default_factory=list)
    shapes: dict[tuple[int, ...], str] = field(default_factory=dict)
    digest: Any = field(default_factory=hashlib.sha256)

    def streamed(self, shape: tuple[int, ...], features: Features) -> Streamed:
        def read(place: int) -> Images:
            file = self.files[self.file[place]]
            with file.open("rb", buffering=0) as opened:
                opened.seek(self.offset[place])
                content = opened.read(self.length[place])
            return _pixels(_named(file, place), content, features, shape)

        return Streamed(read, (len(self.labels), *shape), self.digest.digest())


def _part_of(file: Path, root: Path) -> str:
    """Tell by its name, or its folder's, what a file is for.

    Raises:
        DataError: neither says.
    """
    words = set(re.split(r"[^a-z]+", str(file.relative_to(root)).lower()))
    train, test = TRAIN in words, not words.isdisjoint(TESTS)
    if train == test:
        raise DataError(f"{file}: its name must say either train or test (or val, validation)")
    return "train" if train else "test"


def _index(tf: Any, file: Path, part: _Part, features: Features) -> None:
    if file.suffix == ".gz":
        raise DataError(f"{file} is compressed, and records are read from anywhere in it: gunzip it first")
    number, offset, place = len(part.files), 0, 0
    part.files.append(file)
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            name = _named(file, place)
            found = _example(name, record)
            part.labels.append(_label(name, _feature(name, found, features.label, LABEL, "label")))
            part.shapes.setdefault(_shape_of(name, found, features), name)
            part.digest.update(len(record).to_bytes(8, "little") + record)
            part.file.append(number)
            part.offset.append(offset + _HEAD_BYTES)
            part.length.append(len(record))
            offset, place = offset + _HEAD_BYTES + len(record) + _TAIL_BYTES, place + 1
    except tf.errors.OpError as exc:
        raise DataError(f"{file} is damaged after record {place}: {first_line(exc)}") from exc


def _named(file: Path, place: int) -> str:
    return f"{file}, record {place}"


def _example(name: str, content: bytes) -> Any:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as TensorFlow
    from tensorflow.train import Example  # noqa: PLC0415 - is imported by now

    try:
        return Example.FromString(content).features.feature
    except DecodeError as exc:
        raise DataError(f"{name} is no tf.train.Example") from exc


def _feature(name: str, found: Any, asked: str | None, usual: Sequence[str], what: str) -> Any:
    for each in (asked,) if asked else usual:
        if each in found:
            return found[each]
    raise DataError(
        f"{name} has no {what} ({asked or ', '.join(usual)}): it has {', '.join(sorted(found)) or 'nothing'}; "
        f"--{what}-feature says which it is"
    )


def _label(name: str, feature: Any) -> int | bytes:
    values = [*feature.int64_list.value, *feature.bytes_list.value]
    if len(values) != 1:
        raise DataError(f"{name}: a label is one whole number or text, and it has {len(values)}")
    label: int | bytes = values[0]
    return label


def _content(name: str, found: Any, features: Features) -> bytes:
    values = _feature(name, found, features.image, IMAGE, "image").bytes_list.value
    if len(values) != 1:
        raise DataError(
            f"{name}: an image is one value of bytes (a file's content, or pixels), and it has {len(values)}"
        )
    content: bytes = values[0]
    return content


def _raw_shape(found: Any, size_bytes: int) -> tuple[int, ...] | None:
    """Return the shape of bare pixels; None where the content is no such thing."""
    sizes: list[int] = []
    for usual in (HEIGHT, WIDTH, CHANNELS):
        values = next((list(found[each].int64_list.value) for each in usual if each in found), [])
        sizes += values if len(values) == 1 else [0]
    height, width, channels = sizes
    shape = (height, width) if channels in {0, 1} else (height, width, channels)
    return shape if min(shape) > 0 and prod(shape) == size_bytes else None


def _shape_of(name: str, found: Any, features: Features) -> tuple[int, ...]:
    content = _content(name, found, features)
    return _raw_shape(found, len(content)) or pictures.look(Picture(name, content))


def _pixels(name: str, content: bytes, features: Features, shape: tuple[int, ...]) -> Images:
    found = _example(name, content)
    image = _content(name, found, features)
    raw = _raw_shape(found, len(image))
    if raw is None:
        return pictures.read(Picture(name, image), shape)
    array = np.frombuffer(image, np.uint8).reshape(raw)
    return array if raw == shape else pictures.read(Picture(name, array), shape)
