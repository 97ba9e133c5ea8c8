"""One named tensor of a spec, and reading it from JSON. Numpy only: the robot imports this."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

IMAGE_PREFIX = "images."


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor.

    `labels` and `units` name each element of the last axis of a vector (empty for images);
    `low` and `high` are its limits in those units, where it has any.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    labels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for field in ("labels", "units", "low", "high"):
            values = getattr(self, field)
            last = self.shape[-1] if self.shape else 0
            if values and len(values) != last:
                raise ValueError(f"{self.name}: {len(values)} {field} for a last axis of {last}.")

    @property
    def is_image(self) -> bool:
        """Whether this is a camera frame, (H, W, 3) uint8, or O of them."""
        return self.name.startswith(IMAGE_PREFIX)


def tensor_from(data: Any) -> TensorSpec:
    """The tensor that JSON tells of. Raises KeyError, TypeError or ValueError for what no spec
    says."""
    if not isinstance(data, Mapping):
        raise TypeError(f"a tensor is {data!r:.60}")
    said = cast(Mapping[str, Any], data)
    fields: dict[str, Any] = {
        key: tuple(cast(list[Any], value)) if isinstance(value, list) else value
        for key, value in said.items()
    }
    name = typed("name", fields, str)
    for key, kinds in _ELEMENTS.items():
        values = fields.get(key, ())
        if not isinstance(values, tuple) or any(
            type(value) not in kinds for value in cast(tuple[Any, ...], values)
        ):
            raise TypeError(f"{key} of {name} is {values!r:.60}")
    if not all(0 <= size < 2**31 for size in fields["shape"]):
        raise ValueError(f"shape of {name} is {fields['shape']}")
    if np.dtype(typed("dtype", fields, str)).kind not in "buifc":
        raise ValueError(f"dtype of {name} is {fields['dtype']!r}")
    return TensorSpec(**fields)


# What each may hold, exactly: JSON's true is no number, and Python's is.
_ELEMENTS: Mapping[str, tuple[type, ...]] = {
    "shape": (int,),
    "labels": (str,),
    "units": (str,),
    "low": (int, float),
    "high": (int, float),
}


def typed(key: str, data: Mapping[str, Any], *kinds: type) -> Any:
    """data[key]. Raises KeyError, or TypeError where it is of another type."""
    if type(data[key]) not in kinds:
        raise TypeError(f"{key} is {data[key]!r:.60}")
    return data[key]
