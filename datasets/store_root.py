"""The root group of an episode store: what its attributes say, and which specs it can hold."""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from loopdit.datasets.episode import ACTION
from loopdit.datasets.frame_codecs import FRAMES, JPEG, RAW
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.zarr_files import METADATA
from loopdit.errors import StoreError

FORMAT = "loopdit-episodes"
# 2 added `frames`, `jpeg_quality`, extras and metadata. A store of version 1 is one with raw
# frames, and can be gone on with: what its episodes have more, readers of version 1 do not see.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
EXTRAS = "extras"
CRC32 = "crc32"


@dataclass(frozen=True)
class StoreRoot:
    """The attributes. `jpeg_quality` matters where `frames` is "jpeg" and is kept only there."""

    spec: PolicySpec
    provenance: dict[str, Any]
    frames: str = RAW
    jpeg_quality: int = 95

    def to_attributes(self) -> dict[str, Any]:
        """What `parse_root` reads back."""
        quality = {"jpeg_quality": self.jpeg_quality} if self.frames == JPEG else {}
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "frames": self.frames,
            **quality,
            "spec": self.spec.to_dict(),
            "provenance": self.provenance,
        }
        return attributes | {CRC32: _checksum(attributes)}


def parse_root(metadata: bytes | None, where: str) -> StoreRoot:
    """The root group from its metadata file, None where it has none; `where` is the store's path.

    Raises StoreError for what is no store, damaged, or of another format version.
    """
    try:
        attributes: Any = json.loads(metadata or b"").get("attributes", {})
    except (ValueError, AttributeError):
        attributes = {}
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise StoreError(
            f"{where} is not an episode store: its {METADATA} does not say format {FORMAT!r}. "
            f"Check the path, or make a store of a data set of another format: "
            f"policy-data convert."
        )
    version = attributes.get("format_version")
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise StoreError(
            f"{where} has format version {version}; this loopdit reads versions "
            f"{' and '.join(map(str, READABLE_VERSIONS))}. "
            f"Use the loopdit that wrote it, or record it again."
        )
    wanted = ("spec", "provenance") if version == 1 else ("spec", "provenance", "frames")
    missing = [key for key in wanted if key not in attributes]
    if missing:
        raise StoreError(
            f"{where}/{METADATA} lacks the attribute {missing[0]!r}. Restore that file."
        )
    frames = attributes.get("frames", RAW)
    if frames not in FRAMES:
        raise StoreError(
            f"{where} keeps its frames as {frames!r}; this loopdit reads {', '.join(FRAMES)}. "
            f"Use the loopdit that wrote it."
        )
    spec = PolicySpec.from_dict(attributes["spec"])
    provenance, quality = attributes["provenance"], attributes.get("jpeg_quality", 95)
    if not isinstance(provenance, dict) or type(quality) is not int:
        raise StoreError(
            f"{where}/{METADATA} has a provenance that is no mapping, or a jpeg_quality that is "
            f"no whole number. Restore that file."
        )
    return StoreRoot(spec, cast(dict[str, Any], provenance), frames, quality)


def is_root_as_written(metadata: bytes) -> bool:
    """Whether a root group that `parse_root` can read is as it was written, to the letter of its
    labels and its provenance. Of version 1, which had no checksum, that cannot be told."""
    group = json.loads(metadata)
    attributes = dict(group["attributes"])
    checksum = attributes.pop(CRC32, None)
    if attributes["format_version"] == 1:
        return True
    rest = {key: value for key, value in group.items() if key != "attributes"}
    return checksum == _checksum(attributes) and rest == {"zarr_format": 3, "node_type": "group"}


def _checksum(attributes: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(attributes, sort_keys=True).encode())


def check_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance as JSON reads it back. Raises StoreError for what is no JSON."""
    try:
        return json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StoreError(f"the provenance is not plain JSON: {error}. Leave that out.") from error


def check_names(spec: PolicySpec) -> None:
    """Each tensor is a folder beside the folder of the actions; raise StoreError if it cannot."""
    names = [tensor.name for tensor in spec.observations]
    for name in names:
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
        if not plain or name in (ACTION, METADATA, EXTRAS) or names.count(name) > 1:
            raise StoreError(
                f"the observation {name!r} cannot be stored under that name. Use letters, digits, "
                f"'_', '-' and '.', each name once, and not {ACTION!r} or {EXTRAS!r}."
            )


_SAFE = re.compile(r"[A-Za-z0-9_.-]")


def folder_of_extra(name: str) -> str:
    """The folder of an extra, from which its name can be read: what may not stand in a name of a
    file or an address is `~` and two hex digits for each byte, "obs/eef" is `obs~2Feef`.

    Not `%`, which servers and addresses undo on their own. Raises StoreError for a name that is
    empty or too long for a file.
    """
    text = "".join(
        char if _SAFE.fullmatch(char) else "".join(f"~{byte:02X}" for byte in char.encode())
        for char in name
    )
    if text.startswith((".", "__")) or text == METADATA:  # hidden, reserved by Zarr, taken
        text = f"~{ord(text[0]):02X}{text[1:]}"
    if not text or len(text) > 255:
        raise StoreError(
            f"an extra of an episode cannot be stored as {name[:80]!r}. "
            f"Give it a name of 1 to about 200 characters."
        )
    return text


def extra_of_folder(folder: str) -> str:
    """The name that `folder_of_extra` was given."""
    escapes = re.compile(r"((?:~[0-9A-F]{2})+)")
    return escapes.sub(lambda found: bytes.fromhex(found[0].replace("~", "")).decode(), folder)
