"""Episodes played out in a test: `choose` gives each action (7,), the expert does unless told."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from loopdit.envs.arm_env import ArmEnv

Choose = Callable[[], np.ndarray]


def attempt(env: ArmEnv, choose: Choose | None = None) -> Iterator[dict[str, Any]]:
    """Play on from where `env` is until the episode ends; the info of each control step."""
    choose = choose or env.expert().action
    ended = False
    while not ended:
        _, _, terminated, truncated, info = env.step(choose())
        ended = terminated or truncated
        yield info


def finish(env: ArmEnv, choose: Choose | None = None) -> bool:
    """Play on until the episode ends; whether in success."""
    return [bool(info["success"]) for info in attempt(env, choose)][-1]
