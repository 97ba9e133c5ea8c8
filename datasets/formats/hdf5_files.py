"""Read HDF5 with errors that name file and key, and write it so that a full disk is an error."""

import io
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from loopdit.datasets.formats.plain_json import from_plain, to_plain
from loopdit.errors import StoreError

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


@contextmanager
def reading(path: Path) -> Generator[Any]:
    """The open h5py.File. Raises StoreError for a file that is missing, damaged or no HDF5."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "there is no such file" if not path.exists() else "it is damaged, or no HDF5 file"
        raise StoreError(f"cannot read {path}: {reason}. Check the path, or fetch it again.") from (
            error
        )
    with file:
        yield file


def read(dataset: Any, where: str, key: str) -> Any:
    """A whole data set, as h5py gives it. Raises StoreError naming `where` and `key`."""
    try:
        return dataset[()]
    except (OSError, RuntimeError, TypeError) as error:
        raise StoreError(
            f"{where}: {key} cannot be read, its bytes are damaged or compressed in a way that "
            f"this h5py does not know ({error!s:.80}). Fetch the file again."
        ) from error


def is_text(dataset: Any) -> bool:
    """Whether it holds strings, of fixed or of any length."""
    return h5py.check_string_dtype(dataset.dtype) is not None


def texts(value: Any) -> tuple[str, ...]:
    """The strings of what `read` gave for a data set of strings, one or T of them."""
    items = np.asarray(value, dtype=object).ravel().tolist()
    # Bytes that are no UTF-8 survive as lone surrogates, as h5py itself has them elsewhere.
    return tuple(
        item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item)
        for item in items
    )


def leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path below `group`, data set) of every data set below it."""
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            yield from leaves(item, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", item


def attributes(item: Any, where: str) -> dict[str, Any]:
    """The attributes of a file, group or data set as plain JSON."""
    found: dict[str, Any] = {}
    for name in item.attrs:
        try:
            found[name] = to_plain(item.attrs[name])
        except (ValueError, OSError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{where}: the attribute {name!r} of {item.name} cannot be kept: {error}. "
                f"Remove that attribute."
            ) from error
    return found


def set_attributes(item: Any, plain: Mapping[str, Any]) -> None:
    """Give `item` what `attributes` found."""
    for name, value in plain.items():
        value = from_plain(value)
        is_strings = isinstance(value, np.ndarray) and value.dtype.kind == "O"
        item.attrs.create(name, value, dtype=h5py.string_dtype() if is_strings else None)


def write_texts(group: Any, key: str, values: tuple[str, ...], scalar: bool = False) -> None:
    """Strings of any length in UTF-8, (T,) or, for the only one of an episode, a scalar."""
    group.create_dataset(key, data=values[0] if scalar else values, dtype=h5py.string_dtype())


@contextmanager
def writing(path: Path) -> Generator["HDF5Writer"]:
    """A new file to write to. Raises OSError where it could not be written whole."""
    with path.open("xb+") as raw:
        patient = _PatientFile(raw)
        with h5py.File(patient, "w", driver="fileobj") as file:
            yield HDF5Writer(file, patient)
        patient.check()


class HDF5Writer:
    """An open file, and `check`, to be called often: it raises the OSError that HDF5 was spared."""

    def __init__(self, file: Any, patient: "_PatientFile") -> None:
        self.file = file
        self.check = patient.check


class _PatientFile(io.RawIOBase):
    """Keeps the first failure for later and lets HDF5 believe that it wrote.

    libhdf5 1.14 keeps trying to write what it could not, when an object is closed and again when
    the process ends, where it died of a segmentation fault in 3 of 3 trials on a full disk.
    """

    def __init__(self, raw: Any) -> None:
        super().__init__()
        self._raw = raw
        self._failure: OSError | None = None
        self._position = 0
        self._size = 0

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(
            whence, self._size
        )
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:
        count = memoryview(data).nbytes
        if self._failure is None:
            try:
                self._raw.seek(self._position)
                self._raw.write(data)
            except OSError as error:
                self._failure = error
        self._position += count
        self._size = max(self._size, self._position)
        return count

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        self._raw.seek(self._position)
        found = self._raw.readinto(view)
        view[found:] = bytes(len(view) - found)
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        self._size = self._position if size is None else size
        if self._failure is None:
            try:
                self._raw.truncate(self._size)
            except OSError as error:
                self._failure = error
        return self._size

    def flush(self) -> None:
        if self._failure is None and not self._raw.closed:
            try:
                self._raw.flush()
            except OSError as error:
                self._failure = error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
