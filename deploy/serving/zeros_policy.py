"""A policy that answers zeros: to try a robot's plumbing, and what a server itself costs.

It is served for a spec, and needs no weights: `zeros_for` finds one. Zeros are raw units; where the
spec's limits have no zero, it is the limit nearest to it. Whatever it observes is ignored.

Shapes: H action horizon, A action dim.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.bundle.bundle import Bundle, default_bundle, is_bundle
from loopdit.deploy.serving.served_policy import Inference
from loopdit.errors import ConfigError

# Where the spec is not a bundle's: those of the shipped policy.
DEFAULT_HORIZON = 16
DEFAULT_LOOPS = (1, 2, 3, 4)


class ZerosPolicy:
    """See `served_policy.ServedPolicy`."""

    steps = 1
    instant = True  # see server.py

    def __init__(
        self,
        spec: PolicySpec,
        horizon: int = DEFAULT_HORIZON,
        loops: tuple[int, ...] = DEFAULT_LOOPS,
    ) -> None:
        self.spec = spec
        self.horizon = horizon
        self.loops = loops
        self.model_id = f"zeros-{spec.digest()}"
        chunk = np.zeros((horizon, *spec.action.shape), np.float32)
        if spec.action.low:
            low, high = (np.array(end, np.float32) for end in (spec.action.low, spec.action.high))
            chunk = np.clip(chunk, low, high)
        self._chunk = chunk

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        """The same (H, A) for everything."""
        return Inference(self._chunk, loops, steps, encode_us=0, denoise_us=0)


def zeros_for(path: str) -> ZerosPolicy:
    """Zeros in the place of the policy of a bundle, with its horizon and every K that it has; or
    for the spec of an episode store or in a JSON file (`PolicySpec.to_dict`). For an empty path, in
    the place of the policy shipped with loopdit.

    Raises what opening it raises, and ConfigError for a file that is not JSON.
    """
    place = Path(path or default_bundle())
    if is_bundle(place):
        bundle = Bundle.open(place)
        return ZerosPolicy(bundle.spec, bundle.horizon, bundle.loops)
    if place.suffix == ".json":
        return ZerosPolicy(_spec_in(place))
    return ZerosPolicy(EpisodeStore.open(path).spec)


def _spec_in(path: Path) -> PolicySpec:
    try:
        data: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"spec={path} cannot be read ({error}). Give a bundle, an episode store, or a JSON "
            f"file of what PolicySpec.to_dict() gives."
        ) from error
    return PolicySpec.from_dict(data)
