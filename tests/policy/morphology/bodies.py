"""Bodies for the tests: a chain and a star, with random features and observations."""

import numpy as np

from loopdit.policy.morphology.embodiment import Embodiment, tensors
from loopdit.policy.morphology.morphology_dit import FEATURES


def chain(index: int = 0) -> Embodiment:
    """Four bodies in a row, a slide and a hinge on the first and a hinge on each other one."""
    place = np.arange(4)
    return _body("chain", index, np.abs(place[:, None] - place), [0, 0, 1, 2, 3], motors=[2, 3, 4])


def star(index: int = 1) -> Embodiment:
    """Two legs on a trunk."""
    distances = np.array([[0, 1, 1], [1, 0, 2], [1, 2, 0]])
    return _body("star", index, distances, [0, 1, 2], motors=[1, 2])


def _body(
    name: str, index: int, distances: np.ndarray, joint_body: list[int], motors: list[int]
) -> Embodiment:
    """An angle (slot 0) and a rate (slot 7) are observed of every joint."""
    rng = np.random.default_rng(index)
    joints = len(joint_body)
    arrays = {
        "features": rng.normal(size=(len(distances), FEATURES)),
        "distances": distances,
        "joint_body": np.array(joint_body),
        "motor_joint": np.array(motors),
        "motor_body": np.array(joint_body)[motors],
        "observed_joint": np.tile(np.arange(joints), 2),
        "observed_slot": np.repeat([0, 7], joints),
        "mean": rng.normal(size=2 * joints),
        "spread": rng.uniform(0.5, 2, size=2 * joints),
        "action_mean": rng.uniform(-0.2, 0.2, size=len(motors)),
        "action_spread": rng.uniform(0.2, 0.5, size=len(motors)),
        "reach": rng.uniform(0.5, 2, size=len(motors)),
    }
    return Embodiment(name=name, index=index, **tensors(arrays))
