"""Where on the table an episode puts things: places the gripper reaches and both cameras see."""

import math

import numpy as np

_NEAREST_M, _FARTHEST_M = 0.20, 0.38
_AZIMUTH_RAD = 0.55
_TRIES = 1000


def random_spot(
    rng: np.random.Generator,
    away_from: np.ndarray | None = None,
    gap_m: float = 0.0,
    farthest_m: float = _FARTHEST_M,
) -> np.ndarray:
    """A place (2,) m on the table, uniform in its distance (0.20 m to `farthest_m`) and azimuth.

    At least `gap_m` `away_from` another place, where one is given.
    """
    for _ in range(_TRIES):
        distance = rng.uniform(_NEAREST_M, farthest_m)
        azimuth = rng.uniform(-_AZIMUTH_RAD, _AZIMUTH_RAD)
        spot = np.array([distance * math.cos(azimuth), distance * math.sin(azimuth)])
        if away_from is None or float(np.linalg.norm(spot - away_from[:2])) > gap_m:
            return spot
    raise ValueError(f"no spot on the table is {gap_m} m away from {away_from}.")


def random_heading(rng: np.random.Generator) -> float:
    """A cube's heading, rad: every one that can be told from the others."""
    return rng.uniform(-math.pi / 4, math.pi / 4)
