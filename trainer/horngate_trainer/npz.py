"""Files of NumPy's arrays (.npz), read with nothing believed: sizes are known before anything is read."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from horngate_trainer.errors import DataError, first_line


@dataclass(frozen=True, slots=True)
class Header:
    """What an array in a file will be.

    Attributes:
        dtype: of its elements.
        shape: of all axes.
        fortran: it lies there with its first axis changing fastest, and is copied.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """An open file.

    Attributes:
        path: where.
    """

    path: Path
    _archive: "np.lib.npyio.NpzFile"
    _members: zipfile.ZipFile

    @property
    def names(self) -> Sequence[str]:
        """Of what is in it."""
        return list(self._archive)

    def header(self, name: str) -> Header:
        """Read what an array will be, and nothing of it.

        Raises:
            DataError: it is no NumPy array.
        """
        try:
            with self._members.open(f"{name}.npy") as member:
                shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(member)](member)
        except KeyError as exc:
            raise DataError(f"{self.path}: {name} is not a NumPy array, or of a version that is not known") from exc
        except (ValueError, SyntaxError) as exc:
            raise DataError(f"{self.path}: {name} is not a NumPy array: {first_line(exc)}") from exc
        return Header(dtype, shape, fortran)

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """Read an array.

        Raises:
            DataError: it is none, holds Python objects, or does not fit into memory.
        """
        try:
            array = self._archive[name]
        except (ValueError, SyntaxError) as exc:
            reason = "it holds pickled Python objects" if "allow_pickle" in str(exc) else str(exc).splitlines()[0]
            raise DataError(f"{self.path}: {name} cannot be used: {reason}") from exc
        except MemoryError as exc:
            raise DataError(f"{self.path}: {name} does not fit into memory") from exc
        if not isinstance(array, np.ndarray):  # a member that is not in NumPy's format comes back as bytes
            raise DataError(f"{self.path}: {name} is not a NumPy array")
        return array


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open a file; nothing of its arrays is read yet.

    Raises:
        DataError: it is no .npz file, or a damaged one; so does what is read of it.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path} is not an .npz file (a zip of NumPy arrays)")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive, zipfile.ZipFile(path) as members:
                yield Archive(path, archive, members)
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise DataError(f"{path} is damaged: {exc}") from exc


# --- private ---------------------------------------------------------------------------------------------------------

_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
