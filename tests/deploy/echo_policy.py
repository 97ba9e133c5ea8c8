"""Two small policies that are servable at once, and the observation they take."""

import threading

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec, TensorSpec
from loopdit.deploy.serving.served_policy import Inference

SPEC = PolicySpec(
    observations=(
        TensorSpec("images.front", (4, 6, 3), "uint8"),
        TensorSpec("proprio", (3,), "float32", ("x", "y", "gripper"), ("m", "m", "1")),
    ),
    action=TensorSpec("action", (3,), "float32", ("x", "y", "gripper"), ("m", "m", "1")),
    action_frame="base of the robot",
    control_period_s=0.1,
)
HORIZON = 5


def observation(value: float = 0.0, brightness: int = 0) -> dict[str, np.ndarray]:
    return {
        "images.front": np.full((4, 6, 3), brightness, np.uint8),
        "proprio": np.array([value, -value, 0.5], np.float32),
    }


def expected_actions(
    seen: Observation, seed: int = 0, loops: int = 2, steps: int = 10
) -> np.ndarray:
    """Everything a request says, so that a mixed-up answer shows."""
    base = seen["proprio"] + np.float32(seen["images.front"].mean())
    ramp = np.arange(HORIZON, dtype=np.float32)[:, None]
    return (base + ramp + 1000 * loops + 10 * steps + seed % 997).astype(np.float32)


class EchoPolicy:
    """Answers at once with what it was asked."""

    spec = SPEC
    model_id = "echo-0"
    horizon = HORIZON
    loops = (1, 2)
    steps = 10

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        actions = expected_actions(observation, seed, loops, steps)
        return Inference(actions, loops, steps, encode_us=7, denoise_us=11)


class HeldPolicy(EchoPolicy):
    """Computes until it is let go: `began` says that it computes, `let_go` ends it."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        self.began.release()
        if not self.let_go.acquire(timeout=20):
            raise TimeoutError("the test never let the inference go.")
        return super().infer(observation, seed=seed, loops=loops, steps=steps)


class FailingPolicy(EchoPolicy):
    """Raises for a negative x, makes NaN for x above 100, else echoes."""

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        if observation["proprio"][0] < 0:
            raise ValueError("x is negative\nand this line must not travel")
        made = super().infer(observation, seed=seed, loops=loops, steps=steps)
        if observation["proprio"][0] > 100:
            made.actions[0, 0] = np.nan
        return made
