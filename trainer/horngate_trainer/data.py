"""The training data: where they come from, and the checks that they pass before anything else happens."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from horngate_trainer.errors import DataError, DownloadError, first_line
from horngate_trainer.memory import Size

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A checked image classification data set.

    Attributes:
        source: ``builtin``, ``keras`` or the file's name.
        digest: SHA-256 over names, dtypes, shapes and bytes of the four arrays.
        x_train: uint8 [N, height, width] or [N, height, width, channels].
        y_train: int32 [N], from 0; every class occurs.
        x_test: as x_train, the same image shape.
        y_test: as y_train.
        classes: how many classes there are.
    """

    source: str
    digest: str
    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    classes: int

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.x_train.shape[1:]


def load(source: str, before: Callable[[Size], None] = lambda _: None) -> Dataset:
    """Load ``builtin``, ``keras`` or an .npz file in Keras's layout.

    Args:
        source: which.
        before: told how large a file's data are before images are read; an exception that it raises passes through.

    Raises:
        DataError: the data are missing or not in that layout; the text is one line.
        DownloadError: ``keras`` was asked for and could not be downloaded.
    """
    if source == "keras":
        return _check(source, source, _download())
    if source == "builtin":
        dataset = _check(source, "the built-in MNIST", _read(_BUILTIN, before))
        if dataset.digest != _BUILTIN_DIGEST:
            raise DataError(f"{_BUILTIN} is damaged: its SHA-256 digest is not MNIST's; reinstall horngate")
        return dataset
    path = Path(source)
    return _check(path.name, str(path), _read(path, before))


# --- private ---------------------------------------------------------------------------------------------------------

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_BUILTIN = Path(__file__).parent / "data" / "mnist.npz"
# Of the arrays whose own digests data/LICENSE lists, as _digest computes it.
_BUILTIN_DIGEST = "7da774073f6a8ee20617c6ec7c8aa9b97cd9aca43a85becc5548c015da2ac5ee"


def _read(path: Path, before: Callable[[Size], None]) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path} is not an .npz file (a zip of NumPy arrays)")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                missing = [key for key in _KEYS if key not in archive]
                if missing:
                    raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(archive) or 'nothing'}")
                headers = {key: _header(path, file, key) for key in _KEYS}
                size = _size(path, headers, classes=2)
                before(size)  # labels are small, but not those of a file that lies
                labels = {key: _member(path, archive, key) for key in ("y_train", "y_test")}
                before(replace(size, classes=max(2, len(np.unique(labels["y_train"])))))
                return {key: labels[key] if key in labels else _member(path, archive, key) for key in _KEYS}
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise DataError(f"{path} is damaged: {exc}") from exc


@dataclass(frozen=True, slots=True)
class _Header:
    """What an array in a file will be."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool


def _header(path: Path, file: BinaryIO, key: str) -> _Header:
    """Read what an array will be, and nothing of it.

    Raises:
        DataError: it is no NumPy array.
    """
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
            shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(member)](member)
    except KeyError as exc:
        raise DataError(f"{path}: {key} is not a NumPy array, or of a version that is not known") from exc
    except (ValueError, SyntaxError) as exc:
        raise DataError(f"{path}: {key} is not a NumPy array: {first_line(exc)}") from exc
    return _Header(dtype, shape, fortran)


def _size(path: Path, headers: Mapping[str, _Header], classes: int) -> Size:
    """Return how large the data will be.

    Raises:
        DataError: the images are not what they must be.
    """
    for key in ("x_train", "x_test"):
        _check_images(str(path), key, headers[key].dtype, headers[key].shape)
    # What lies in Fortran's order is copied into C's while the other is still there; labels are sorted and cast.
    copies = {key: 1 + header.fortran if key.startswith("x") else 3 for key, header in headers.items()}
    sizes = {key: prod(header.shape) * header.dtype.itemsize for key, header in headers.items()}
    return Size(
        train=headers["x_train"].shape[0],
        test=headers["x_test"].shape[0],
        image_shape=headers["x_train"].shape[1:],
        classes=classes,
        loading_bytes=sum(copies[key] * sizes[key] for key in headers),
    )


def _member(path: Path, archive: "np.lib.npyio.NpzFile", key: str) -> npt.NDArray[np.generic]:
    try:
        array = archive[key]
    except (ValueError, SyntaxError) as exc:
        reason = "it holds pickled Python objects" if "allow_pickle" in str(exc) else str(exc).splitlines()[0]
        raise DataError(f"{path}: {key} cannot be used: {reason}") from exc
    except MemoryError as exc:
        raise DataError(f"{path}: {key} does not fit into memory") from exc
    if not isinstance(array, np.ndarray):  # a member that is not in NumPy's format comes back as bytes
        raise DataError(f"{path}: {key} is not a NumPy array")
    return array


def _download() -> dict[str, npt.NDArray[np.generic]]:
    import keras  # noqa: PLC0415  (TensorFlow, seconds: only where it is asked for)

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as exc:  # Keras raises bare Exception where a download fails
        raise DownloadError(f"keras could not download its data: {str(exc).splitlines()[0]}") from exc
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _check(source: str, where: str, arrays: dict[str, npt.NDArray[np.generic]]) -> Dataset:
    images = {key: _images(where, key, arrays[key]) for key in ("x_train", "x_test")}
    labels = {key: _labels(where, key, arrays[key]) for key in ("y_train", "y_test")}
    for part in ("train", "test"):
        x, y = images[f"x_{part}"], labels[f"y_{part}"]
        if len(x) != len(y):
            raise DataError(f"{where}: x_{part} has {len(x)} images but y_{part} has {len(y)} labels")
    if images["x_train"].shape[1:] != images["x_test"].shape[1:]:
        shapes = f"{images['x_train'].shape[1:]} and {images['x_test'].shape[1:]}"
        raise DataError(f"{where}: images of x_train and x_test differ in shape: {shapes}")
    known = np.unique(labels["y_train"])
    # Counted up to the number of labels that occur, so that one stray label never asks for a network of its size.
    absent = np.flatnonzero(known != np.arange(len(known)))
    if len(absent):
        raise DataError(
            f"{where}: label {known[absent[0]]} in y_train is out of range: labels count from 0 without gaps, "
            f"and no image has label {absent[0]}"
        )
    if len(known) < 2:
        raise DataError(f"{where}: y_train has only one class; there is nothing to learn")
    if labels["y_test"].max() >= len(known):
        raise DataError(
            f"{where}: label {labels['y_test'].max()} in y_test is out of range: y_train has 0 to {len(known) - 1}"
        )
    return Dataset(
        source=source,
        digest=_digest({**images, **labels}),
        x_train=images["x_train"],
        y_train=labels["y_train"],
        x_test=images["x_test"],
        y_test=labels["y_test"],
        classes=len(known),
    )


def _images(where: str, key: str, array: npt.NDArray[np.generic]) -> Images:
    _check_images(where, key, array.dtype, array.shape)
    return np.ascontiguousarray(array, np.uint8)


def _check_images(where: str, key: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if dtype != np.uint8 and not dtype.hasobject:
        raise DataError(f"{where}: {key} must be uint8 (pixels from 0 to 255), not {dtype}")
    if len(shape) not in (3, 4):
        raise DataError(f"{where}: {key} must be [N, height, width] or [N, height, width, channels], not {shape}")
    if not prod(shape):
        raise DataError(f"{where}: {key} is empty: {shape}")


def _labels(where: str, key: str, array: npt.NDArray[np.generic]) -> Labels:
    if array.dtype.kind not in "iu":
        raise DataError(f"{where}: {key} must be whole numbers, not {array.dtype}")
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise DataError(f"{where}: {key} must be [N], not {array.shape}")
    if array.size == 0:
        raise DataError(f"{where}: {key} is empty")
    least, most = int(array.min()), int(array.max())
    if least < 0 or most > np.iinfo(np.int32).max:
        raise DataError(f"{where}: label {least if least < 0 else most} in {key} is out of range; labels count from 0")
    return np.ascontiguousarray(array.reshape(-1), np.int32)


def _digest(arrays: dict[str, Images | Labels]) -> str:
    whole = hashlib.sha256()
    for key in _KEYS:
        array = arrays[key]
        whole.update(f"{key} {array.dtype.str} {array.shape} ".encode())
        whole.update(hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest())
    return whole.hexdigest()
