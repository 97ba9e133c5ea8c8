"""Whether one episode of a store is as it was written: everything of it is read.

What its numbers mean is not judged here, only that they are the ones that were appended.
"""

from typing import Any

from loopdit.datasets.episode import Content
from loopdit.datasets.episode_files import (
    CRC32,
    checksum,
    digest_of,
    extra_tensors,
    metadata_in,
    read_attributes,
    tensors_of,
)
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.tensor_files import Damage, Read, Tensor, check_metadata, read_content
from loopdit.datasets.zarr_files import METADATA
from loopdit.errors import StoreError

# What the list and the episode's own attributes both say.
SAID_TWICE = ("length", "instruction", "success", "seed", "digest")


def check_episode(store: EpisodeStore, index: int) -> list[tuple[str, str]]:
    """What is wrong with one episode, as (key, what is wrong): empty where nothing is.

    The key is that of an observation, "action", "extras/<name>", or "" for the episode as a
    whole. Raises StoreError only where the place that holds the store fails.
    """
    record, read = store.episodes[index], store.read_of(index)
    problems: list[tuple[str, str]] = []
    attributes: dict[str, Any] = {}
    tensors = tensors_of(store.spec, store.frames, record.length)
    try:
        attributes = read_attributes(read)
        tensors |= extra_tensors(attributes, record.length)
    except Damage as error:
        problems.append(("", str(error)))
    for field in SAID_TWICE:
        listed, found = getattr(record, field), attributes.get(field)
        if attributes and found != listed:
            problems.append(("", f"{METADATA} says {field} {found!r}, the list {listed!r}"))
    if attributes and attributes.get("length") != record.length:
        return problems  # nothing can be held against shapes that may be enormous
    checksums = attributes.get(CRC32, {})
    contents: dict[str, Content] = {}
    for key, tensor in tensors.items():
        try:
            contents[key] = _content(read, tensor)
        except Damage as error:
            problems.append((key, str(error)))
            continue
        if key in checksums and checksum(contents[key]) != checksums[key]:
            problems.append((key, f"{tensor.folder} holds other data than was recorded"))
    if not problems and digest_of(_outcome(attributes), contents, metadata_in(attributes)) != (
        record.digest
    ):
        problems.append(("", "its content is not what was recorded: the digest differs"))
    return problems


def require_whole(store: EpisodeStore, index: int) -> None:
    """Raise StoreError for an episode that is not as it was written: a copy of it would get a
    digest that vouches for the damage."""
    problems = check_episode(store, index)
    if problems:
        what = ": ".join(filter(None, problems[0]))
        raise StoreError(
            f"{store.episodes[index].id} of {store.path} is damaged: {what}. "
            f"Set it aside first: policy-data repair {store.path}."
        )


def _content(read: Read, tensor: Tensor) -> Content:
    content = read_content(read, tensor)
    check_metadata(read, tensor)
    return content


def _outcome(attributes: dict[str, Any]) -> dict[str, Any]:
    return {field: attributes.get(field) for field in SAID_TWICE}
