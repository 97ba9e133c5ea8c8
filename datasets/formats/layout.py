"""A mapping made definite for one data set: which key is which, decided by its first episode.

The layout is what an import and the export that undoes it share. It is a function of the mapping
and of the shapes of one step (`StepShape`), so that both can be kept as plain JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loopdit.datasets.episode import ACTION
from loopdit.datasets.formats.foreign import ForeignEpisode
from loopdit.datasets.formats.mapping import DataMapping
from loopdit.datasets.formats.vector_parts import PartSource, StepShape, find_part, labels_of
from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, PolicySpec, TensorSpec
from loopdit.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """`cameras` has the foreign key of each of our cameras, `steps` the shapes of the keys that
    they and the vectors come from; `left_out` are keys of cameras that show nothing."""

    mapping: DataMapping
    cameras: Mapping[str, str]
    proprio: tuple[PartSource, ...]
    action: tuple[PartSource, ...]
    steps: Mapping[str, StepShape]
    left_out: tuple[str, ...] = ()

    @property
    def vectors(self) -> tuple[str, ...]:
        """The foreign keys that proprio and action are made of."""
        return tuple(dict.fromkeys(s.key for s in (*self.proprio, *self.action)))

    def spec(self, rate_hz: float) -> PolicySpec:
        """The spec of the store that such episodes make."""
        images = tuple(
            TensorSpec(f"{IMAGE_PREFIX}{camera}", self.steps[key].shape, "uint8")
            for camera, key in self.cameras.items()
        )
        return PolicySpec(
            observations=(*images, _vector(PROPRIO, self.proprio)),
            action=_vector(ACTION, self.action),
            action_frame=self.mapping.action_frame,
            control_period_s=1.0 / rate_hz,
        )


def step_shapes(episode: ForeignEpisode) -> dict[str, StepShape]:
    """What one step of the episode holds, by key."""
    return {
        key: StepShape(tuple(values.shape[1:]), values.dtype.name)
        for key, values in episode.steps.items()
    }


def lay_out(
    mapping: DataMapping,
    steps: Mapping[str, StepShape],
    where: str,
    left_out: Sequence[str] = (),
) -> Layout:
    """Decide each camera's and part's key. A camera that is not there is left out, unless all are.

    Raises ConfigError naming `where` for a mapping that does not fit.
    """
    found = {
        camera: next((key for key in keys if key in steps), "")
        for camera, keys in mapping.cameras.items()
    }
    cameras = {camera: key for camera, key in found.items() if key and key not in left_out}
    if mapping.cameras and not any(found.values()):
        frames = [key for key, step in steps.items() if len(step.shape) == 3]
        raise ConfigError(
            f"{where} has none of the mapping's cameras {', '.join(map(repr, mapping.cameras))}; "
            f"its images are {', '.join(map(repr, frames)) or 'none'}. Name them in the mapping."
        )
    proprio = tuple(find_part(part, steps, where) for part in mapping.proprio)
    action = tuple(find_part(part, steps, where) for part in mapping.action)
    used = dict.fromkeys([*cameras.values(), *left_out, *(s.key for s in (*proprio, *action))])
    return Layout(
        mapping, cameras, proprio, action, {key: steps[key] for key in used}, tuple(left_out)
    )


def _vector(name: str, sources: Sequence[PartSource]) -> TensorSpec:
    """Labels always; units where any part has them; limits only where every part has both."""
    units: list[str] = []
    for source in sources:
        units += source.part.units or ("",) * source.size
    bounded = all(source.part.low and source.part.high for source in sources)
    return TensorSpec(
        name,
        (sum(source.size for source in sources),),
        "float32",
        labels=tuple(label for source in sources for label in labels_of(source)),
        units=tuple(units) if any(units) else (),
        low=tuple(v for s in sources for v in s.part.low) if bounded else (),
        high=tuple(v for s in sources for v in s.part.high) if bounded else (),
    )


def split_parts(sources: Sequence[PartSource], ours: np.ndarray) -> list[np.ndarray]:
    """ours (T, D) cut into the parts (T, P) of each source."""
    ends = np.cumsum([source.size for source in sources])
    return np.split(ours, ends[:-1], axis=1)
