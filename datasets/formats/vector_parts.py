"""One part of our proprio or action and the foreign vector it comes from, in both directions.

T steps, D elements of the foreign vector, P of the part. ours (T, P) = scale * theirs[:, columns]
+ offset, computed in float64 and kept as float32: a sign or a power of two is undone exactly,
anything else to rounding.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loopdit.datasets.formats.mapping import VectorPart
from loopdit.errors import ConfigError

_SELECTION = re.compile(r"(?P<key>.+)\[(?P<first>-?\d+)?(?P<colon>:)?(?P<end>-?\d+)?\]")


@dataclass(frozen=True)
class StepShape:
    """The shape of one step of a foreign array (() for a scalar), and its dtype's name."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class PartSource:
    """Where a part is found in one data set: the key, and the elements of its flattened steps."""

    part: VectorPart
    key: str
    columns: tuple[int, ...]

    @property
    def size(self) -> int:
        """P, the number of our elements."""
        return len(self.columns)


def find_part(part: VectorPart, steps: Mapping[str, StepShape], where: str) -> PartSource:
    """The first of the part's keys that the data set has. Raises ConfigError where it has none,
    or where the part's fields do not fit the vector that it found."""
    for text in part.keys:
        key, columns = _selected(text, part.columns, steps)
        if key in steps:
            size = int(np.prod(steps[key].shape))
            source = PartSource(part, key, _resolved(columns, size, text, where))
            _check_lengths(source, where)
            return source
    vectors = [key for key, step in steps.items() if len(step.shape) <= 1]
    raise ConfigError(
        f"{where}: none of the mapping's keys {', '.join(map(repr, part.keys))} is there. It has "
        f"{', '.join(map(repr, vectors)) or 'no vectors'}; name one of them in the mapping."
    )


def part_of_ours(source: PartSource, theirs: np.ndarray) -> np.ndarray:
    """theirs (T, ...) -> our part (T, P) float32."""
    chosen = theirs.reshape(len(theirs), -1)[:, list(source.columns)].astype(np.float64)
    scale, offset = _scale_and_offset(source)
    with np.errstate(over="ignore", invalid="ignore"):  # whoever stores it refuses what overflows
        return (chosen * scale + offset).astype(np.float32)


def put_back(source: PartSource, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Write our part (T, P) into its elements of `theirs` (T, ...), in the dtype of `theirs`."""
    scale, offset = _scale_and_offset(source)
    values = (ours.astype(np.float64) - offset) / scale
    if theirs.dtype.kind in "iu":
        values = np.rint(values)
    theirs.reshape(len(theirs), -1)[:, list(source.columns)] = values


def labels_of(source: PartSource) -> tuple[str, ...]:
    """The part's labels; where it has none, the last word of the key with a number."""
    if source.part.labels:
        return source.part.labels
    word = re.split(r"[/.]", source.key)[-1]
    return (word,) if source.size == 1 else tuple(f"{word}_{i}" for i in range(source.size))


def _scale_and_offset(source: PartSource) -> tuple[np.ndarray, np.ndarray]:
    part = source.part
    return (
        np.array(part.scale or [1.0] * source.size, dtype=np.float64),
        np.array(part.offset or [0.0] * source.size, dtype=np.float64),
    )


def _selected(
    text: str, columns: Sequence[int], steps: Mapping[str, StepShape]
) -> tuple[str, tuple[int, ...] | slice]:
    """A key as a mapping writes it ("action[3:6]") -> the key, and which elements of it."""
    found = None if text in steps else _SELECTION.fullmatch(text)
    if found is None:
        return text, tuple(columns) or slice(None)
    first = int(found["first"]) if found["first"] else None
    if found["colon"]:
        return found["key"], slice(first, int(found["end"]) if found["end"] else None)
    return found["key"], (first or 0,)


def _resolved(
    columns: tuple[int, ...] | slice, size: int, text: str, where: str
) -> tuple[int, ...]:
    if isinstance(columns, slice):
        chosen = tuple(range(size))[columns]
    else:
        chosen = tuple(column + size if column < 0 else column for column in columns)
    taken = f"the elements {chosen}" if chosen else "no element"
    if not chosen or min(chosen) < 0 or max(chosen) >= size:
        raise ConfigError(
            f"{where}: the mapping takes {taken} of {text!r}, which has {size}. "
            f"Correct the mapping's columns."
        )
    return chosen


def _check_lengths(source: PartSource, where: str) -> None:
    part = source.part
    fields = {
        "labels": part.labels,
        "units": part.units,
        "scale": part.scale,
        "offset": part.offset,
        "low": part.low,
        "high": part.high,
    }
    for name, values in fields.items():
        if values and len(values) != source.size:
            raise ConfigError(
                f"{where}: the mapping has {len(values)} {name} for the {source.size} elements "
                f"of {source.key!r}. Give one for each, or none."
            )
