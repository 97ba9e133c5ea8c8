"""Episodes that are compressed or far away, decoded once into plain files on the local disk.

    FOLDER/<digest of the episode>.<tensor>     plain C-order bytes, as `EpisodeFiles` reads them
    FOLDER/.<the same>.part                     one being written, locked by its writer

A file is named by its content, so it is never stale and any number of data sets and processes
share it; it appears by being renamed, whole or not at all. The folder is bounded: what was used
longest ago goes first, and what this process has reserved only when nothing else is left. A file
that goes while a process has it mapped stays readable there, and its bytes on the disk, until that
process ends.
"""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from loopdit.cache_folder import cache_folder
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError, StoreError

FOLDER_VARIABLE, SIZE_VARIABLE = "LOOPDIT_CACHE", "LOOPDIT_CACHE_GIB"
DEFAULT_GIB = 20.0
_GIB = 1 << 30


class DecodedCache:
    """Usable by several threads. `folder` is made when it is first needed."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._reserved: dict[str, int] = {}
        self._decoded = 0
        self._lock = threading.Lock()

    @classmethod
    def default(cls) -> "DecodedCache":
        """The one in the user's cache folder, or where LOOPDIT_CACHE and LOOPDIT_CACHE_GIB say."""
        text = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_GIB)
        try:
            size = float(text) * _GIB
        except ValueError:
            size = -1.0
        if not 0 <= size < float("inf"):
            raise ConfigError(f"{SIZE_VARIABLE}={text} is no size. Give a number of GiB, as 20.")
        return cls(cache_folder("episodes"), int(size))

    def file(self, store: EpisodeStore, index: int, name: str) -> Path:
        """The plain file of one tensor of one episode, decoded now if it is not there yet.

        Raises StoreError where the episode cannot be read, or the file not written.
        """
        path = self.folder / _key(store, index, name)
        size = _size(store, index, name)
        if not _use(path, size):
            self._decode(path, size, store, index, name)
        return path

    def holds(self, store: EpisodeStore, index: int, name: str) -> bool:
        """Whether that file is there already; it then counts as used now."""
        return _use(self.folder / _key(store, index, name), _size(store, index, name))

    def reserve(self, store: EpisodeStore, episodes: Iterable[int], names: Iterable[str]) -> int:
        """Claim room for tensors of these episodes, nothing if all that is claimed does not fit.

        Returns the bytes that are lacking, 0 when the claim holds. Raises StoreError for a folder
        that cannot be written to, before anything is decoded.
        """
        names = list(names)
        if not names:
            return 0
        wanted = {_key(store, i, name): _size(store, i, name) for i in episodes for name in names}
        with self._lock:
            claimed = self._reserved | wanted
            total = sum(claimed.values())
            if total > self.max_bytes:  # leaves the disk alone
                return total - self.max_bytes
            self._require_folder()
            lacking = total - self._disk_bytes()
            if lacking <= 0:
                self._reserved = claimed
        return max(0, lacking)

    def describe(self) -> str:
        """One line: where it is, how much of it is used, what this process decoded."""
        used = sum(size for _, size, _ in self._entries())
        return (
            f"decoded episodes: {used / _GIB:.2f} of {self.max_bytes / _GIB:.2f} GiB used in "
            f"{self.folder}, {self._decoded} files decoded just now"
        )

    def _decode(self, path: Path, size: int, store: EpisodeStore, index: int, name: str) -> None:
        self._require_folder()
        try:
            with _alone_with(path) as (aside, descriptor):
                if _use(path, size):  # another thread or process was at it meanwhile
                    aside.unlink()
                    return
                self._make_room(size, descriptor)
                values = store.decode(index, name)
                _write(descriptor, np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
                aside.rename(path)
        except OSError as error:
            raise self._failed(error, size) from error
        with self._lock:
            self._decoded += 1

    def _make_room(self, size: int, descriptor: int) -> None:
        """Remove files until `size` more bytes fit, and take them for the file being written."""
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = sorted(self._entries(), key=lambda entry: entry[2])
            entries.sort(key=lambda entry: entry[0].name in self._reserved)  # stable: old first
            excess = sum(held for _, held, _ in entries) + size - self.max_bytes
            for path, held, _ in entries:
                if excess <= 0:
                    break
                if _remove(path):
                    excess -= held
            os.ftruncate(descriptor, size)  # counts for whoever looks next
        finally:
            os.close(lock)

    def _entries(self) -> list[tuple[Path, int, float]]:
        """(path, bytes, when last used) of every file, those being written too."""
        found: list[tuple[Path, int, float]] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # gone or renamed meanwhile
                    if file.name != ".lock":
                        status = file.stat()
                        found.append((Path(file.path), status.st_size, status.st_mtime))
        return found

    def _disk_bytes(self) -> int:
        """What the folder could hold: what it holds, and what is free on its disk."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize + sum(size for _, size, _ in self._entries())

    def _require_folder(self) -> None:
        """Make the folder, and try that files can be put there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644))
        except OSError as error:
            raise self._failed(error, 0) from error

    def _failed(self, error: OSError, size: int) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return StoreError(
                f"cannot decode {size / 1e6:.0f} MB into {self.folder}: {error.strerror}. Free "
                f"space there, or name a folder on another disk: {FOLDER_VARIABLE}=FOLDER."
            )
        return StoreError(
            f"cannot write to the cache of decoded episodes {self.folder}: {error.strerror}. "
            f"Mend that, or name another folder: {FOLDER_VARIABLE}=FOLDER."
        )


def _key(store: EpisodeStore, index: int, name: str) -> str:
    return f"{store.episodes[index].digest}.{name}"


def _size(store: EpisodeStore, index: int, name: str) -> int:
    return store.tensors(index)[name].nbytes


def _use(path: Path, size: int) -> bool:
    """Whether the whole file is there; it then counts as used now."""
    try:
        if path.stat().st_size != size:
            return False
    except OSError:  # not there; or the folder cannot be used, which decoding into it will say
        return False
    with contextlib.suppress(OSError):  # another user's file, or gone just now
        os.utime(path)
    return True


@contextmanager
def _alone_with(path: Path) -> Generator[tuple[Path, int]]:
    """The file to write beside `path`, while no other thread or process writes it."""
    aside = path.with_name(f".{path.name}.part")
    while True:
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held it before has renamed or removed it: then this is no longer its name.
            current = os.stat(aside).st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            current = False
        if current:
            break
        os.close(descriptor)
    try:
        yield aside, descriptor
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> bool:
    """Remove a file unless a living writer has it."""
    if path.name.startswith("."):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:
                return False
            finally:
                os.close(descriptor)
        return True
    path.unlink(missing_ok=True)
    return True


def _write(descriptor: int, content: memoryview) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)
