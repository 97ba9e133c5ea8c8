"""An episode as files: what it is encoded to, and how its parts are read back.

zarr.json         attributes: length, instruction, success, seed, digest, a crc32 of each
                  array, and where there are any: extras (their shapes and dtypes), metadata
<tensor>/         an observation, or "action": `tensor_files` says how each is kept
extras/<name>/    arrays that no policy reads, raw, in folders named by `folder_of_extra`
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from loopdit.datasets.episode import (
    ACTION,
    Content,
    Episode,
    checked_arrays,
    checked_extras,
    checked_metadata,
    content_digest,
)
from loopdit.datasets.frame_codecs import RAW, JpegFrames, encoding_of
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store_root import EXTRAS, StoreRoot, folder_of_extra
from loopdit.datasets.tensor_files import Damage, Read, Tensor, encode_array, parsed
from loopdit.datasets.zarr_files import METADATA, Buffer, group_metadata

CRC32 = "crc32"
_METADATA_OF_EPISODE = "metadata"


def tensors_of(spec: PolicySpec, frames: str, length: int) -> dict[str, Tensor]:
    """The observations and the action of an episode of `length` steps by name."""
    declared = [(tensor.name, tensor, frames) for tensor in spec.observations]
    return {
        name: Tensor(
            name,
            (length, *tensor.shape),
            np.dtype(tensor.dtype).newbyteorder("<"),
            encoding_of(tensor, kept),
        )
        for name, tensor, kept in [*declared, (ACTION, spec.action, RAW)]
    }


def encode_episode(
    episode: Episode, root: StoreRoot, jpegs: Mapping[str, JpegFrames] | None = None
) -> tuple[dict[str, Buffer], dict[str, Any]]:
    """The files of an episode by name, and its record without the id.

    `jpegs` are those that its frames came from: they are kept instead of encoding these again.
    Raises SpecMismatch or StoreError for an episode that does not fit.
    """
    arrays, extras = checked_arrays(episode, root.spec), checked_extras(episode)
    metadata = checked_metadata(episode)
    length = len(episode.actions)
    outcome: dict[str, Any] = {
        "length": length,
        "instruction": episode.instruction,
        "success": None if episode.success is None else bool(episode.success),
        "seed": None if episode.seed is None else int(episode.seed),
    }
    described = {
        name: {"shape": array.shape[1:], "dtype": array.dtype.name}
        for name, array in extras.items()
    }
    tensors = tensors_of(root.spec, root.frames, length)
    tensors |= extra_tensors({EXTRAS: described}, length)
    files: dict[str, Buffer] = {f"{EXTRAS}/{METADATA}": group_metadata({})} if extras else {}
    contents: dict[str, Content] = {}
    keyed: dict[str, np.ndarray | JpegFrames] = {**arrays, **(jpegs or {})}
    keyed |= {extra_key(name): array for name, array in extras.items()}
    for key, array in keyed.items():
        encoded, contents[key] = encode_array(array, tensors[key], root.jpeg_quality)
        files |= encoded
    outcome["digest"] = digest_of(outcome, contents, metadata)
    attributes = {**outcome, CRC32: {key: checksum(contents[key]) for key in contents}}
    attributes |= {EXTRAS: described} if extras else {}
    attributes |= {_METADATA_OF_EPISODE: metadata} if metadata else {}
    return {METADATA: group_metadata(attributes), **files}, outcome


def extra_key(name: str) -> str:
    """What an extra is called beside the observations, none of which can be called so."""
    return f"{EXTRAS}/{name}"


def extra_tensors(attributes: Mapping[str, Any], length: int) -> dict[str, Tensor]:
    """The extras of an episode by `extra_key`, from its attributes. Raises Damage."""
    try:
        return {
            extra_key(name): Tensor(
                f"{EXTRAS}/{folder_of_extra(name)}",
                (length, *map(int, extra["shape"])),
                np.dtype(extra["dtype"]).newbyteorder("<"),
            )
            for name, extra in attributes.get(EXTRAS, {}).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damage(METADATA, f"does not describe the extras ({error!r})") from error


def read_attributes(read: Read) -> dict[str, Any]:
    """The attributes of the episode's group. Raises Damage."""
    attributes = parsed(read, METADATA).get("attributes")
    if not isinstance(attributes, dict):
        raise Damage(METADATA, "has no attributes")
    return attributes


def metadata_in(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of an episode from its attributes."""
    return dict(attributes.get(_METADATA_OF_EPISODE, {}))


def digest_of(
    outcome: Mapping[str, Any], contents: Mapping[str, Content], metadata: Mapping[str, Any]
) -> str:
    """The digest of an episode from the content of each of its arrays, extras by `extra_key`."""
    prefix = extra_key("")
    extras = {
        key.removeprefix(prefix): content
        for key, content in contents.items()
        if key.startswith(prefix)
    }
    arrays = {key: content for key, content in contents.items() if not key.startswith(prefix)}
    return content_digest(outcome, arrays, extras, metadata)


def checksum(content: Content) -> int:
    """Which array was altered; the digest, which takes all of them, says only that one was."""
    value = 0
    for buffer in content.buffers:
        value = zlib.crc32(buffer, value)
    return value
