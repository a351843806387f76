"""The training data: where they come from, and the checks that they pass before anything else happens."""

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from horngate_trainer.errors import DataError, DownloadError

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


def load(source: str) -> Dataset:
    """Load ``builtin``, ``keras`` or an .npz file in Keras's layout.

    Raises:
        DataError: the data are missing or not in that layout; the text is one line.
        DownloadError: ``keras`` was asked for and could not be downloaded.
    """
    if source == "keras":
        return _check(source, source, _download())
    if source == "builtin":
        dataset = _check(source, "the built-in MNIST", _read(_BUILTIN))
        if dataset.digest != _BUILTIN_DIGEST:
            raise DataError(f"{_BUILTIN} is damaged: its SHA-256 digest is not MNIST's; reinstall horngate")
        return dataset
    path = Path(source)
    return _check(path.name, str(path), _read(path))


# --- private ---------------------------------------------------------------------------------------------------------

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_BUILTIN = Path(__file__).parent / "data" / "mnist.npz"
# Of the arrays whose own digests data/LICENSE lists, as _digest computes it.
_BUILTIN_DIGEST = "7da774073f6a8ee20617c6ec7c8aa9b97cd9aca43a85becc5548c015da2ac5ee"


def _read(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path} is not an .npz file (a zip of NumPy arrays)")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                missing = [key for key in _KEYS if key not in archive]
                if missing:
                    raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(archive) or 'nothing'}")
                return {key: _member(path, archive, key) for key in _KEYS}
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise DataError(f"{path} is damaged: {exc}") from exc


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
    if array.dtype != np.uint8:
        raise DataError(f"{where}: {key} must be uint8 (pixels from 0 to 255), not {array.dtype}")
    if array.ndim not in (3, 4):
        raise DataError(f"{where}: {key} must be [N, height, width] or [N, height, width, channels], not {array.shape}")
    if array.size == 0:
        raise DataError(f"{where}: {key} is empty: {array.shape}")
    return np.ascontiguousarray(array, np.uint8)


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
