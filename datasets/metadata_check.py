"""Whether the small JSON files of an episode say exactly what was written, and nothing else.

`check_episode` compares what Zarr readers need; here no field may be another one, so that a single
changed letter is found. Both are for stores that loopdit wrote: nothing else writes into them.
"""

import json
from collections.abc import Mapping
from typing import Any

from loopdit.datasets.episode_check import SAID_TWICE
from loopdit.datasets.episode_files import (
    CRC32,
    extra_key,
    extra_tensors,
    metadata_in,
    read_attributes,
)
from loopdit.datasets.frame_codecs import JPEG
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.store_root import EXTRAS
from loopdit.datasets.tensor_files import (
    Read,
    Tensor,
    encode_array,
    parsed,
    read_jpegs,
    written_metadata,
)
from loopdit.datasets.zarr_files import METADATA, Buffer, group_metadata


def check_metadata_files(store: EpisodeStore, index: int) -> list[tuple[str, str]]:
    """What is wrong, as (key, what is wrong), of an episode that `check_episode` found whole.

    Raises Damage for a file that is no JSON.
    """
    read, length = store.read_of(index), store.episodes[index].length
    attributes = read_attributes(read)
    extras = extra_tensors(attributes, length)
    tensors = store.tensors(index) | extras
    problems = _of_group(read, attributes, list(tensors))
    if extras:
        problems += _different(read, "", {f"{EXTRAS}/{METADATA}": group_metadata({})})
    for key, tensor in tensors.items():
        problems += _different(read, key, _wanted(read, tensor))
    return problems


def _of_group(read: Read, attributes: Mapping[str, Any], keys: list[str]) -> list[tuple[str, str]]:
    """What is wrong with the episode's own file. Format version 1 has no checksums."""
    wanted: dict[str, Any] = {field: attributes.get(field) for field in SAID_TWICE}
    if CRC32 in attributes:
        wanted[CRC32] = {key: attributes[CRC32].get(key) for key in keys}
    if any(key.startswith(extra_key("")) for key in keys):
        wanted[EXTRAS] = {
            name: {"shape": extra.get("shape"), "dtype": extra.get("dtype")}
            for name, extra in attributes[EXTRAS].items()
        }
    if metadata_in(attributes):
        wanted["metadata"] = metadata_in(attributes)
    return _different(read, "", {METADATA: group_metadata(wanted)})


def _wanted(read: Read, tensor: Tensor) -> dict[str, Buffer]:
    """The metadata files of an array as they are written."""
    if tensor.encoding == JPEG:
        files, _ = encode_array(read_jpegs(read, tensor), tensor, 100)
        return {name: content for name, content in files.items() if name.endswith(METADATA)}
    file = f"{tensor.folder}/{METADATA}"
    return {file: written_metadata(parsed(read, file), tensor)}


def _different(read: Read, key: str, wanted: Mapping[str, Buffer]) -> list[tuple[str, str]]:
    return [
        (key, f"{file} is not what was written")
        for file, content in wanted.items()
        if parsed(read, file) != json.loads(bytes(content))
    ]
