"""How a robot that lacks a camera says so: the key of its frame is absent from the observation.

The policy's spec declares every camera that it was trained with, and which of them may be missing
(`PolicySpec.optional`). A robot's observation has no key for a camera that it does not have or
whose frame is lost; anything else that is absent is an error. At the border it becomes what a graph
with fixed inputs takes: a black frame in its place, and AVAILABLE (C,) bool, in the order of the
spec's cameras, which masks it (`cameras`). Numpy only.
"""

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec

AVAILABLE = "available"


def complete_observation(spec: PolicySpec, observation: Observation) -> dict[str, np.ndarray]:
    """A single observation that `spec` accepts as a policy's inputs: every declared tensor, and
    AVAILABLE where cameras may be missing. The arrays that are there are shared."""
    if not spec.optional:
        return dict(observation)
    black = {
        camera.name: np.zeros(camera.shape, camera.dtype)
        for camera in spec.cameras
        if camera.name not in observation
    }
    available = np.array([camera.name in observation for camera in spec.cameras], bool)
    return {**observation, **black, AVAILABLE: available}
