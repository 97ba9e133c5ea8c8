"""How the expert of each runner is found: which search over which few numbers.

A recipe makes an expert of a parameter vector (D,), and says where to start. The settings were
chosen for minutes on one core; whoever searches for hours gets further (`about` in each file has
the return beside random, docs/morphology.md beside published ones). Walker2d has no recipe: ARS
with 16 directions, of which 8 are followed, was at a return of 753 after 110 updates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loopdit.envs.morphology.graph import body_graph
from loopdit.envs.morphology.observed import motor_places, observed_slots
from loopdit.envs.suites.locomotion import Locomotion
from loopdit.errors import ConfigError
from loopdit.eval.morphology.expert import GaitExpert, LinearExpert
from loopdit.eval.morphology.search import (
    CrossEntropyConfig,
    RandomSearchConfig,
    RunningStatistics,
)


@dataclass(frozen=True)
class LinearRecipe:
    """ARS over a linear map of the first `observed` numbers. `survival` is the reward a step that
    the suite gives for not falling; it is left out while searching, or the search learns to stand
    (Mania et al., section 4.1)."""

    search: RandomSearchConfig
    observed: int
    survival: float = 0.0


@dataclass(frozen=True)
class GaitRecipe:
    """CEM over the numbers of a gait, in episodes of `steps` steps while searching."""

    search: CrossEntropyConfig
    steps: int


RECIPES: dict[str, LinearRecipe | GaitRecipe] = {
    "Swimmer-v5": LinearRecipe(RandomSearchConfig(100, 4, 2, step=0.02, noise=0.02), observed=8),
    "HalfCheetah-v5": LinearRecipe(
        RandomSearchConfig(130, 16, 4, step=0.02, noise=0.03), observed=17
    ),
    "Hopper-v5": LinearRecipe(
        RandomSearchConfig(160, 8, 4, step=0.02, noise=0.025), observed=11, survival=1.0
    ),
    "Ant-v5": GaitRecipe(CrossEntropyConfig(updates=60, samples=48, elite=10), steps=250),
}


def recipe_of(task: str) -> LinearRecipe | GaitRecipe:
    """The recipe for Gymnasium's `task`. Raises ConfigError where there is none."""
    if task not in RECIPES:
        known = ", ".join(f"gymnasium/{name}" for name in RECIPES)
        raise ConfigError(f"env=gymnasium/{task}: there is no recipe for it. There are: {known}.")
    return RECIPES[task]


def linear_maker(
    robot: Locomotion, statistics: RunningStatistics
) -> Callable[[np.ndarray], LinearExpert]:
    """Parameters (A * R,) -> the expert, normalising by what has been seen until then."""
    motors = robot.action_spec.shape[0]

    def make(parameters: np.ndarray) -> LinearExpert:
        weights = parameters.reshape(motors, statistics.size)
        return LinearExpert(weights, statistics.mean.copy(), statistics.spread)

    return make


def gait_maker(robot: Locomotion) -> tuple[Callable[[np.ndarray], GaitExpert], np.ndarray]:
    """Parameters -> the gait, and their spread at the start (D,), where all are 0.

    They are offsets, cosine and sine swings (A each) in shares of the joints' ranges about their
    middle, and the logarithms of period, stiffness and damping. Swings as two parts, not size and
    phase: nothing is periodic or at a border for the search to stumble over.
    """
    graph = body_graph(robot.model)
    joints, slots = observed_slots(robot.model, robot.proprio_spec.labels or ())
    angles, rates = motor_places(joints, slots, graph.motor_joint)
    limits = np.asarray(robot.model.jnt_range)[graph.motor_joint]  # (A, 2)
    middle, half = limits.mean(1), (limits[:, 1] - limits[:, 0]) / 2
    motors = len(half)

    def make(parameters: np.ndarray) -> GaitExpert:
        offset, cosine, sine = parameters[: 3 * motors].reshape(3, motors)
        period, stiffness, damping = np.exp(parameters[3 * motors :])
        return GaitExpert(
            offset=middle + half * offset,
            swing=half * np.hypot(cosine, sine),
            phase=np.arctan2(cosine, sine),
            period_steps=_PERIOD_STEPS * period,
            stiffness=_STIFFNESS * stiffness,
            damping=_DAMPING * damping,
            angles=angles,
            rates=rates,
        )

    spread = np.concatenate([np.full(motors, 0.4), np.full(2 * motors, 0.7), np.full(3, 0.4)])
    return make, spread


# Where the search starts: of the order of a second, and of a motor's full force at half a radian.
_PERIOD_STEPS = 12.0
_STIFFNESS = 2.0
_DAMPING = 0.05
