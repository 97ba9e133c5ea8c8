"""What is done to an expert's actions while demonstrations are recorded, so that they recover.

Gaussian noise at every step, and kicks: a few steps of one random drift, at times with the gripper
command turned over. The executed action is perturbed, the recorded label is the expert's own, so
the data shows states off the expert's path together with the way back.

Actions (7,) as the arm environments take them: dx dy dz [m], a rotation vector [rad], gripper
opening 0 to 1. An action of any other spec gets noise alone, in shares of each element's range and
none on grippers: what a kick is, only the units of an arm say.
Everything is drawn beforehand: `apply` is a pure function of action and step.
"""

from dataclasses import dataclass

import numpy as np

from loopdit.command import option
from loopdit.datasets.spec import TensorSpec
from loopdit.errors import ConfigError

_ARM_LABELS = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
_ARM_UNITS = ("m", "m", "m", "rad", "rad", "rad", "1")
_TRANSLATION = slice(0, 3)
_YAW = 5
_GRIPPER = 6
_KICK_STEPS = (2, 5)  # shortest and longest
_KICK_TRANSLATION_M = 0.03
_KICK_YAW_RAD = 0.25
_FLIP_PROBABILITY = 0.3


@dataclass(frozen=True)
class NoiseConfig:
    """How far the executed action strays from the expert's."""

    translation_m: float = option(0.006, "standard deviation of the noise on x, y and z, metres")
    yaw_rad: float = option(0.05, "standard deviation of the noise on yaw, radians")
    kick_probability: float = option(
        0.03, "chance at each step that a kick begins: 2 to 5 steps of one random drift"
    )
    share: float = option(
        0.05,
        "for actions that are not the arm's: standard deviation of the noise on each element but "
        "grippers, as a share of its range",
    )

    def __post_init__(self) -> None:
        for name in ("translation_m", "yaw_rad", "share"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"noise.{name}={getattr(self, name)} is no standard deviation. "
                    f"Use 0 or more; 0 means none."
                )
        if not 0 <= self.kick_probability <= 1:
            raise ConfigError(
                f"noise.kick_probability={self.kick_probability} is no probability. Use 0 to 1."
            )


@dataclass(frozen=True)
class Perturbation:
    """The perturbation of one episode of at most T steps.

    `noise` and `drift` (T, A) in action units, `kicked` and `flipped` (T,) bool.
    """

    noise: np.ndarray
    drift: np.ndarray
    kicked: np.ndarray
    flipped: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def apply(self, action: np.ndarray, step: int) -> np.ndarray:
        """The action (A,) float32 to execute at `step` in place of `action`, within its limits."""
        executed = action + self.noise[step]
        if self.kicked[step]:
            executed[_TRANSLATION] = self.drift[step, _TRANSLATION]
            executed[_YAW] = self.drift[step, _YAW]
        if self.flipped[step]:
            executed[_GRIPPER] = 1 - action[_GRIPPER]
        return np.clip(executed, self.low, self.high).astype(np.float32)


def draw_perturbation(
    config: NoiseConfig, action: TensorSpec, steps: int, rng: np.random.Generator
) -> Perturbation:
    """The perturbation that `rng` gives an episode of at most `steps` steps.

    More steps only add to it: the first ones stay the same.
    """
    noise_rng, kick_rng = rng.spawn(2)
    if action.labels != _ARM_LABELS or action.units != _ARM_UNITS:
        return _noise_alone(config, action, steps, noise_rng)
    noise = np.zeros((steps, 7))
    spread = (config.translation_m,) * 3 + (config.yaw_rad,)
    noise[:, [0, 1, 2, _YAW]] = noise_rng.normal(0, spread, (steps, 4))
    drift = np.zeros((steps, 7))
    kicked = np.zeros(steps, dtype=bool)
    flipped = np.zeros(steps, dtype=bool)
    step = 0
    while step < steps:
        if kick_rng.random() >= config.kick_probability:
            step += 1
            continue
        length = int(kick_rng.integers(_KICK_STEPS[0], _KICK_STEPS[1] + 1))
        kick = slice(step, step + length)
        kicked[kick] = True
        drift[kick, _TRANSLATION] = kick_rng.uniform(-_KICK_TRANSLATION_M, _KICK_TRANSLATION_M, 3)
        drift[kick, _YAW] = kick_rng.uniform(-_KICK_YAW_RAD, _KICK_YAW_RAD)
        flipped[kick] = kick_rng.random() < _FLIP_PROBABILITY
        step += length
    return Perturbation(noise, drift, kicked, flipped, np.array(action.low), np.array(action.high))


def _noise_alone(
    config: NoiseConfig, action: TensorSpec, steps: int, rng: np.random.Generator
) -> Perturbation:
    size = action.shape[0]
    low = np.array(action.low or (-np.inf,) * size)
    high = np.array(action.high or (np.inf,) * size)
    # An element without limits has no range to take a share of.
    bounded = np.isfinite(low) & np.isfinite(high)
    spread = config.share * np.where(bounded, high - low, 0.0)
    labels = action.labels or ("",) * size
    spread[[label.endswith("gripper") for label in labels]] = 0.0
    never = np.zeros(steps, dtype=bool)
    noise = rng.normal(0, spread, (steps, size))
    return Perturbation(noise, np.zeros((steps, size)), never, never, low, high)
