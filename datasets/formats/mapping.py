"""The declaration that turns a foreign data set into ours and back: which key is what.

A mapping is a YAML file of `datasets/mappings/` (or a user's own) with these fields. It is
declarative: keys, columns, scales, offsets, names, units, limits and rates, and no code.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class VectorPart:
    """Some consecutive elements of our proprio or action, and where they come from.

    `keys` are tried in order: the same data set names a thing differently in two formats.
    `columns` chooses elements of the foreign vector, empty for all. `scale` and `offset` have a
    number for each element, empty for 1 and 0: ours = scale * theirs + offset, which turns a
    gripper's sign around and millimetres into metres, and can be undone.
    """

    keys: tuple[str, ...]
    labels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class DataMapping:
    """What becomes of a foreign episode's keys; what is named nowhere is kept as an extra.

    `cameras` has the foreign keys of each of our camera names. `action_frame` says in words what
    an action's numbers are relative to, `convention` whether they are "delta" or "absolute".
    `success` are keys that tell of success, `seed` those of the seed an environment was reset
    with, `drop` keys that are duplicates and not worth keeping. All keys are tried in order; those
    of `instruction`, `success` and `seed` are looked for in the texts, the steps and the metadata.
    """

    cameras: Mapping[str, tuple[str, ...]]
    proprio: tuple[VectorPart, ...]
    action: tuple[VectorPart, ...]
    action_frame: str
    convention: str = ""
    rate_hz: float = 0.0
    instruction: tuple[str, ...] = ()
    success: tuple[str, ...] = ()
    seed: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
