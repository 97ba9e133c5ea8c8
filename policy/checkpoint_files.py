"""The files of a checkpoint, replaced all at once: by one rename, that of `checkpoint.json`.

The manifest lists its files with their bytes and sha256, and has a sha256 of itself. New files are
written beside the old ones, as `model-<digest>.safetensors`; the manifest that names their digests
takes the place of the old one; then they get their plain names. Whoever is killed or finds the disk
full before that rename leaves the old checkpoint, after it the new one; a reader takes a file under
either name, and only with the right digest. Readers need no lock, writers must be one at a time.

Knows nothing of what is in the files.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from loopdit.errors import CheckpointError
from loopdit.whole_file import whole_file

MANIFEST = "checkpoint.json"
LOOPED, GRAFT = "looped", "graft"  # kinds of policies, in a manifest's "kind"; without it: looped
_FILES = "files"
_DIGEST = "sha256"  # of the manifest's other entries
_ATTEMPTS = 5  # of a reader, when a writer is at work: each sees another whole checkpoint
_FORMER = ("training_state.pt",)  # of format version 1

Write = Callable[[Path], None]


def replace_checkpoint(
    folder: Path, manifest: Mapping[str, Any], files: Mapping[str, Write]
) -> None:
    """Make `folder` hold exactly these files and this manifest. Raises OSError and what `files` do.

    Each of `files` writes to the path it is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = _settle(folder)
    entries: dict[str, dict[str, Any]] = {}
    try:
        for name, write in files.items():
            aside = folder / f".{name}.new"
            write(aside)
            entries[name] = _entry(aside)
            os.replace(aside, _pending(folder, name, entries[name]))
        text = json.dumps(_signed({**manifest, _FILES: entries}), indent=1)
        _sync_folder(folder)
        with whole_file(folder / MANIFEST) as path:
            path.write_text(text)
        _sync_folder(folder)
    except BaseException:
        _settle(folder)
        raise
    _settle(folder)
    for name in before - set(files):
        (folder / name).unlink(missing_ok=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `checkpoint.json` says. Raises CheckpointError: missing or unreadable."""
    path = folder / MANIFEST
    try:
        manifest: Any = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"{folder} is not a checkpoint: it has no {MANIFEST}. "
            f"Make one: policy-train out={folder}."
        ) from error
    except ValueError as error:  # not JSON, or not even text
        raise CheckpointError(f"{path} is damaged: {error}. Train or copy it again.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("provenance", {}), dict):
        raise CheckpointError(f"{path} is not a checkpoint's. Train or copy it again.")
    if _DIGEST in manifest and manifest[_DIGEST] != _signed(manifest)[_DIGEST]:
        raise CheckpointError(
            f"{path} is damaged: its content is not what its own {_DIGEST} says. Train or copy it "
            f"again."
        )
    return manifest


def read_checkpoint(folder: Path, names: Iterable[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the content of the files `names`, all of one moment.

    A manifest without digests (format version 1, and the bundles of its time) vouches for nothing.
    Raises CheckpointError for a file that is missing, cut or changed.
    """
    wanted = list(names)
    for attempt in range(_ATTEMPTS):
        manifest = read_manifest(folder)
        try:
            return manifest, {name: _content(folder, name, manifest) for name in wanted}
        except CheckpointError:
            # Replaced while it was read, unless it is the same still.
            if attempt == _ATTEMPTS - 1 or read_manifest(folder) == manifest:
                raise
    raise AssertionError


def _signed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a digest of all else that it says, whatever the spacing."""
    rest = {name: value for name, value in manifest.items() if name != _DIGEST}
    plain = json.loads(json.dumps(rest))  # keys and tuples as they are read back
    text = json.dumps(plain, sort_keys=True)
    return {**plain, _DIGEST: hashlib.sha256(text.encode()).hexdigest()}


def _content(folder: Path, name: str, manifest: Mapping[str, Any]) -> bytes:
    entry = manifest.get(_FILES, {}).get(name)
    if entry is None and _FILES in manifest:
        raise CheckpointError(f"{folder / MANIFEST} names no {name}: {folder} is without it.")
    try:
        content = _read(folder / name, entry and _pending(folder, name, entry))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder / name} is missing. Copy the whole folder.") from error
    if entry is None:
        return content
    if len(content) != entry["bytes"]:
        found = f"it has {len(content)} bytes, {MANIFEST} says {entry['bytes']}"
    elif hashlib.sha256(content).hexdigest() != entry["sha256"]:
        found = f"its sha256 is not the one in {MANIFEST}"
    else:
        return content
    raise CheckpointError(f"{folder / name} is damaged: {found}. Train or copy it again.")


def _read(plain: Path, pending: Path | None) -> bytes:
    # In this order: once the interim name is gone, the file has its plain one.
    if pending is not None:
        with suppress(FileNotFoundError):
            return pending.read_bytes()
    return plain.read_bytes()


def _entry(path: Path) -> dict[str, Any]:
    """The size and digest of a file, which is on the disk when this returns."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    path.chmod(0o644)  # some writers leave their files to their owner alone
    return {"bytes": path.stat().st_size, "sha256": digest}


def _pending(folder: Path, name: str, entry: Mapping[str, Any]) -> Path:
    stem, dot, suffix = name.rpartition(".")
    return folder / f"{stem}-{entry['sha256'][:16]}{dot}{suffix}"


_PENDING_NAME = re.compile(r"(.+)-[0-9a-f]{16}(\.[^.]+)")


def _settle(folder: Path) -> set[str]:
    """Give the manifest's files their plain names and remove what it does not name.

    Returns the names.
    """
    try:
        entries: dict[str, Any] = read_manifest(folder).get(_FILES, {})
    except CheckpointError:
        entries = {}
    for name, entry in entries.items():
        pending = _pending(folder, name, entry)
        if pending.exists():
            os.replace(pending, folder / name)
    for path in folder.iterdir():
        unnamed = entries and path.name in _FORMER
        written_aside = path.name.startswith(f".{MANIFEST}.") or (
            path.name.startswith(".") and path.suffix == ".new"
        )
        if unnamed or written_aside or _PENDING_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return set(entries)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
