"""The training data: where they come from, and the checks that they pass before anything else happens."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from horngate_trainer import image_folder, npz, pixels, tfrecords
from horngate_trainer.errors import DataError, DownloadError
from horngate_trainer.memory import Size
from horngate_trainer.pixels import Images, Labels
from horngate_trainer.streamed import Streamed
from horngate_trainer.tfrecords import Features


@dataclass(frozen=True, slots=True)
class Dataset:
    """A checked image classification data set.

    Attributes:
        source: ``builtin``, ``keras``, or the file's or folder's name.
        digest: SHA-256 over names, dtypes, shapes and bytes of the four arrays; for images that are streamed,
            their files' beginnings and sizes (`image_folder`) or their records stand.
        x_train: uint8 [N, height, width] or [N, height, width, channels]; an array, or read as it is needed.
        y_train: int32 [N], from 0; every class occurs.
        x_test: as x_train, the same image shape.
        y_test: as y_train.
        classes: how many classes there are.
        names: of the classes, by label; None where they have none but their numbers.
    """

    source: str
    digest: str
    x_train: Images | Streamed
    y_train: Labels
    x_test: Images | Streamed
    y_test: Labels
    classes: int
    names: Sequence[str] | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.x_train.shape[1:]

    def name(self, label: int) -> str:
        """What a class is called."""
        return str(label) if self.names is None else self.names[label]


def load(
    source: str,
    before: Callable[[Size], None] = lambda _: None,
    image_size: tuple[int, int] | None = None,
    *,
    stream: bool = False,
    features: Features | None = None,
) -> Dataset:
    """Load ``builtin``, ``keras``, an .npz file in Keras's layout, a folder of images, or one of TFRecords.

    Args:
        source: which.
        before: told how large the data are before images are read, again where more is known; an exception that it
            raises passes through.
        image_size: height and width that a folder's images are brought to.
        stream: leave a folder's images where they are, and read them as they are needed. TFRecords always are.
        features: of TFRecords; None: of the usual names.

    Raises:
        DataError: the data are missing or not in that layout; the text is one line.
        DownloadError: ``keras`` was asked for and could not be downloaded.
    """
    path = Path(source)
    if source not in {"builtin", "keras"} and path.is_dir():
        if tfrecords.files(path):
            arrays, names = tfrecords.load(path, before, image_size, features or Features())
            return _check(path.resolve().name, str(path), arrays, names)
        if features is not None:
            raise DataError(f"{source} has no TFRecords, whose features --image-feature and --label-feature name")
        found = image_folder.load(path, before, image_size, stream=stream)
        return _check(path.resolve().name, str(path), found.arrays, found.names)
    for flag, given in (("--image-size", image_size), ("--stream", stream), ("--image-feature", features)):
        if given:
            raise DataError(f"{flag} is for a folder of images, and {source} is none")
    if source == "keras":
        before(_MNIST)
        return _check(source, source, *_converted(source, _download()))
    if source == "builtin":
        dataset = _check(source, "the built-in MNIST", *_read(_BUILTIN, before))
        if dataset.digest != _BUILTIN_DIGEST:
            raise DataError(f"{_BUILTIN} is damaged: its SHA-256 digest is not MNIST's; reinstall horngate")
        return dataset
    return _check(path.name, str(path), *_read(path, before))


# --- private ---------------------------------------------------------------------------------------------------------

_Arrays = dict[str, npt.NDArray[Any]]
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_BUILTIN = Path(__file__).parent / "data" / "mnist.npz"
# Of the arrays whose own digests data/LICENSE lists, as _digest computes it.
_BUILTIN_DIGEST = "7da774073f6a8ee20617c6ec7c8aa9b97cd9aca43a85becc5548c015da2ac5ee"
_MNIST = Size(train=60_000, test=10_000, image_shape=(28, 28), classes=10, loading_bytes=2 * 70_000 * 28 * 28)


def _read(path: Path, before: Callable[[Size], None]) -> tuple[_Arrays, Sequence[str] | None]:
    """Read a file's images as pixels, and its labels as numbers, with the names that these stand for."""
    with npz.opened(path) as archive:
        missing = [key for key in _KEYS if key not in archive.names]
        if missing:
            raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(archive.names) or 'nothing'}")
        size = _size(path, {key: archive.header(key) for key in _KEYS})
        before(size)  # labels are small, but not those of a file that lies
        labels, names = pixels.labels(str(path), {key: archive.read(key) for key in ("y_train", "y_test")})
        before(replace(size, classes=max(2, len(np.unique(labels["y_train"])))))
        images = pixels.images(str(path), {key: archive.read(key) for key in ("x_train", "x_test")})
        return {**images, **labels}, names


def _converted(where: str, arrays: _Arrays) -> tuple[_Arrays, Sequence[str] | None]:
    labels, names = pixels.labels(where, {key: arrays[key] for key in ("y_train", "y_test")})
    return {**pixels.images(where, {key: arrays[key] for key in ("x_train", "x_test")}), **labels}, names


def _size(path: Path, headers: Mapping[str, npz.Header]) -> Size:
    """Return how large the data will be, as far as that is known before labels are read.

    Raises:
        DataError: the images are not what they must be.
    """
    for key in ("x_train", "x_test"):
        pixels.check(str(path), key, headers[key].dtype, headers[key].shape)
    # What lies in Fortran's order is copied into C's while the other is still there; labels are sorted and cast.
    copies = {key: 1 + header.fortran if key.startswith("x") else 3 for key, header in headers.items()}
    made = [prod(header.shape) for key, header in headers.items() if key.startswith("x") and header.dtype != np.uint8]
    return Size(
        train=headers["x_train"].shape[0],
        test=headers["x_test"].shape[0],
        image_shape=headers["x_train"].shape[1:],
        classes=2,
        loading_bytes=sum(copies[key] * headers[key].size_bytes for key in headers) + sum(made),
    )


def _download() -> dict[str, npt.NDArray[np.generic]]:
    import keras  # noqa: PLC0415  (TensorFlow, seconds: only where it is asked for)

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as exc:  # Keras raises bare Exception where a download fails
        raise DownloadError(f"keras could not download its data: {str(exc).splitlines()[0]}") from exc
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _check(source: str, where: str, arrays: Mapping[str, Any], names: Sequence[str] | None) -> Dataset:
    """Check pixels and labels against each other.

    Raises:
        DataError: they do not fit.
    """
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(x) != len(y):
            raise DataError(f"{where}: x_{part} has {len(x)} images but y_{part} has {len(y)} labels")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        shapes = f"{arrays['x_train'].shape[1:]} and {arrays['x_test'].shape[1:]}"
        raise DataError(f"{where}: images of x_train and x_test differ in shape: {shapes}")
    known = np.unique(arrays["y_train"])
    # Counted up to the number of labels that occur, so that one stray label never asks for a network of its size.
    absent = np.flatnonzero(known != np.arange(len(known)))
    if len(absent):
        raise DataError(
            f"{where}: label {known[absent[0]]} in y_train is out of range: labels count from 0 without gaps, "
            f"and no image has label {absent[0]}"
        )
    if len(known) < 2:
        raise DataError(f"{where}: y_train has only one class; there is nothing to learn")
    if arrays["y_test"].max() >= len(known):
        raise DataError(
            f"{where}: label {arrays['y_test'].max()} in y_test is out of range: y_train has 0 to {len(known) - 1}"
        )
    return Dataset(
        source=source,
        digest=_digest(arrays),
        x_train=arrays["x_train"],
        y_train=arrays["y_train"],
        x_test=arrays["x_test"],
        y_test=arrays["y_test"],
        classes=len(known),
        names=names,
    )


def _digest(arrays: Mapping[str, Any]) -> str:
    whole = hashlib.sha256()
    for key in _KEYS:
        array = arrays[key]
        whole.update(f"{key} {array.dtype.str} {array.shape} ".encode())
        own = array.digest if isinstance(array, Streamed) else None
        whole.update(own or hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest())
    return whole.hexdigest()
