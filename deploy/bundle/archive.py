"""A bundle in one file: a zip of its files, unpacked once into a cache that is keyed by its sha256.

The folder in the cache appears by a rename, whole or not at all, however many processes unpack at
the same time. It may be deleted at any moment that nothing runs from it. Nothing is written outside
it, whatever the names in a zip say. Equal files make an equal zip, to the byte.

Knows nothing of what is in the files; whether they are what the manifest says is for `bundle`.
"""

import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from loopdit.cache_folder import cache_folder
from loopdit.deploy.bundle.manifest import MANIFEST
from loopdit.errors import BundleError

ARCHIVE_SUFFIX = ".zip"

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # what a zip can say; a date of its own would change the sha256
_STORED = ".safetensors"  # float32 weights shrink by 7 %, slowly
_BLOCK = 1 << 20


def pack(folder: Path, archive: Path, names: Sequence[str]) -> None:
    """Write the files `names` of `folder` as `archive`. Raises OSError."""
    with zipfile.ZipFile(archive, "w") as packed:
        for name in sorted(names):
            info = zipfile.ZipInfo(name, _EARLIEST)
            info.external_attr = 0o644 << 16
            stored = name.endswith(_STORED)
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            with (folder / name).open("rb") as file, packed.open(info, "w", force_zip64=True) as to:
                shutil.copyfileobj(file, to, _BLOCK)


def cached_folder(archive: Path) -> Path:
    """Where the files of `archive` are, or will be once it is unpacked."""
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return cache_folder("bundles") / digest


def manifest_of(archive: Path) -> bytes:
    """What the manifest in a zip says. Raises BundleError where there is none, and OSError."""
    with _opened(archive) as packed:
        return packed.read(MANIFEST)


def unpack(archive: Path, folder: Path) -> None:
    """Make `folder`, which is not there, hold exactly the files of `archive`.

    Raises BundleError for a file that is no zip of a bundle, and for a disk that refuses.
    """
    aside = folder.with_name(f".{folder.name}.unpacking-{os.getpid()}")
    try:
        with _opened(archive) as packed:
            aside.mkdir(parents=True)
            _require_space(packed, aside, archive)
            for info in packed.infolist():
                with packed.open(info) as file, (aside / info.filename).open("wb") as to:
                    shutil.copyfileobj(file, to, _BLOCK)
        with suppress(OSError):  # somebody was quicker: the same files
            aside.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise BundleError(f"{archive} is truncated or altered ({error}). Copy it again.") from error
    except OSError as error:
        raise BundleError(
            f"cannot unpack {archive} into {folder}: {error.strerror or error}. Free some space "
            f"there, or name another cache with LOOPDIT_CACHE."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder of the cache that is not what it was."""
    aside = folder.with_name(f".{folder.name}.discarded-{os.getpid()}")
    with suppress(OSError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _opened(archive: Path) -> zipfile.ZipFile:
    """A zip whose names are those of plain files, a manifest among them. Raises BundleError."""
    try:
        packed = zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise BundleError(
            f"{archive} is neither a bundle's folder nor a whole zip of one ({error}). Copy it "
            f"again, or make it: policy-export checkpoint=CHECKPOINT out=BUNDLE.zip"
        ) from error
    names = [info.filename for info in packed.infolist()]
    strange = [name for name in names if not _is_plain(name)]
    if strange or MANIFEST not in names or len(set(names)) < len(names):
        packed.close()
        found = f"has {strange[0]!r} in it" if strange else f"has no one {MANIFEST}"
        raise BundleError(
            f"{archive} is no zip of a bundle: it {found}. It must hold the bundle's files, by "
            f"their plain names, each once."
        )
    return packed


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def _require_space(packed: zipfile.ZipFile, folder: Path, archive: Path) -> None:
    """A small file can claim to become a large one: ask before any of it is written."""
    needed = sum(info.file_size for info in packed.infolist())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BundleError(
            f"{archive} becomes {needed / 1e6:.0f} MB when it is unpacked into {folder.parent}, "
            f"which has {free / 1e6:.0f} MB left. Free some, or name another cache with "
            f"LOOPDIT_CACHE."
        )
