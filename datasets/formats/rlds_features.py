"""What a TFDS features.json says of an RLDS episode: its features, flat, and the file again.

T steps. In a record, a feature of the steps is one list of all steps' values under "steps/<key>",
a feature of the episode stands under its own path. Read is the JSON of TFDS 4.4 and later (Open-X
and Bridge have it); of the features those that an episode of a robot can be made of.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loopdit.datasets.episode import EXTRA_DTYPES

STEPS = "steps/"
_MODULE = "tensorflow_datasets.core.features"

TENSOR = "tensor"
IMAGE = "image"
TEXT = "text"


@dataclass(frozen=True)
class RldsFeature:
    """One feature. `path` begins with "steps/" for those of the steps, `shape` is one step's.

    `kind` is tensor, image or text. `encoding` is that of a tensor's bytes (none, bytes, zlib) or
    an image's (png, jpeg, or "" for either). A None in the shape is a size that varies.
    """

    path: str
    kind: str
    shape: tuple[int | None, ...] = ()
    dtype: str = "string"
    encoding: str = ""

    @property
    def is_step(self) -> bool:
        """Whether there is one for each step."""
        return self.path.startswith(STEPS)

    @property
    def key(self) -> str:
        """The key in a `ForeignEpisode`: the path below the steps, or the episode's own path."""
        return self.path.removeprefix(STEPS)


def parse_features(data: Any) -> list[RldsFeature]:
    """Every feature of a features.json. Raises ValueError saying what is not understood."""
    found = list(_walk(data, "", ()))
    if not any(feature.is_step for feature in found):
        raise ValueError("has no 'steps', so it is no RLDS data set")
    return found


def features_json(features: Iterable[RldsFeature]) -> dict[str, Any]:
    """The contents of the features.json that TFDS reads these features from."""
    steps: dict[str, Any] = {}
    episode: dict[str, Any] = {}
    for feature in features:
        _nest(steps if feature.is_step else episode, feature.key.split("/"), _leaf(feature))
    sequence = {"feature": _dictionary(steps), "length": "-1"}
    dataset = {
        "pythonClassName": f"{_MODULE}.dataset_feature.Dataset",
        "sequence": sequence,
    }
    return _dictionary(episode | {"steps": dataset})


def _walk(node: Any, path: str, outer: tuple[int | None, ...]) -> Iterator[RldsFeature]:
    """`outer` are the lengths of the sequences around, the steps' own left out."""
    if not isinstance(node, Mapping):
        raise ValueError(f"describes {path or 'the episode'!r} by {node!r:.40}")
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _walk(child, f"{path}/{name}" if path else name, outer)
    elif "sequence" in node:
        sequence = node["sequence"]
        length = int(sequence.get("length", -1))
        if path == "steps":
            yield from _walk(sequence["feature"], path, outer)
        else:
            inner = (*outer, None if length < 0 else length)
            yield from _walk(sequence["feature"], path, inner)
    elif "tensor" in node:
        tensor = node["tensor"]
        encoding = str(tensor.get("encoding") or "none")
        dtype = _dtype(tensor["dtype"], path)
        kind = TEXT if dtype == "string" else TENSOR
        yield RldsFeature(path, kind, outer + _shape(tensor), dtype, encoding)
    elif "image" in node:
        image = node["image"]
        encoding = str(image.get("encodingFormat") or "")
        dtype = _dtype(image.get("dtype") or "uint8", path)
        yield RldsFeature(path, IMAGE, outer + _shape(image), dtype, encoding)
    elif "text" in node:
        yield RldsFeature(path, TEXT, outer)
    elif "classLabel" in node:
        yield RldsFeature(path, TENSOR, outer, "int64", "none")
    else:
        kind = node.get("pythonClassName") or json.dumps(node)
        raise ValueError(f"describes {path!r} as {kind!s:.80}, which this loopdit cannot read")


def _dtype(said: Any, path: str) -> str:
    if said not in ("string", *EXTRA_DTYPES):
        raise ValueError(f"describes {path!r} with the dtype {said!r:.40}, which cannot be read")
    return str(said)


def _shape(node: Mapping[str, Any]) -> tuple[int | None, ...]:
    sizes = [int(size) for size in node.get("shape", {}).get("dimensions", [])]
    return tuple(None if size < 0 else size for size in sizes)


def _leaf(feature: RldsFeature) -> dict[str, Any]:
    shape = {"dimensions": [str(-1 if size is None else size) for size in feature.shape]}
    described: dict[str, Any] = {"shape": shape if feature.shape else {}, "dtype": feature.dtype}
    if feature.kind == TEXT and not feature.shape:
        return {"pythonClassName": f"{_MODULE}.text_feature.Text", "text": {}}
    if feature.kind == IMAGE:
        return {
            "pythonClassName": f"{_MODULE}.image_feature.Image",
            "image": described | {"encodingFormat": feature.encoding or "png"},
        }
    name = "tensor_feature.Tensor" if feature.shape else "scalar.Scalar"
    return {
        "pythonClassName": f"{_MODULE}.{name}",
        "tensor": described | {"encoding": feature.encoding or "none"},
    }


def _dictionary(children: dict[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_MODULE}.features_dict.FeaturesDict",
        "featuresDict": {"features": children},
    }


def _nest(tree: dict[str, Any], words: list[str], leaf: dict[str, Any]) -> None:
    for word in words[:-1]:
        tree = tree.setdefault(word, _dictionary({}))["featuresDict"]["features"]
    tree[words[-1]] = leaf
