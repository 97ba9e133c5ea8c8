"""What every transport carries in the comparison: two frames and a state there, a chunk back.

The policy makes zeros and looks at nothing; a server has to have its arrays before it answers.
"""

import numpy as np

from loopdit.datasets.spec import PolicySpec, TensorSpec

FRONT, WRIST, STATE = "images.front", "images.wrist", "proprio"
FRAME, STATE_SIZE, CHUNK = (224, 224, 3), 8, (16, 7)
SPEC = PolicySpec(
    observations=(
        TensorSpec(FRONT, FRAME, "uint8"),
        TensorSpec(WRIST, FRAME, "uint8"),
        TensorSpec(STATE, (STATE_SIZE,), "float32"),
    ),
    action=TensorSpec("action", CHUNK[1:], "float32"),
    action_frame="none: it is never executed",
    control_period_s=0.02,
)


def observations(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Different frames each, so that none is found in a cache because it is the one before."""
    random = np.random.default_rng(seed)
    return [
        {
            FRONT: random.integers(0, 256, FRAME, dtype=np.uint8),
            WRIST: random.integers(0, 256, FRAME, dtype=np.uint8),
            STATE: random.standard_normal(STATE_SIZE).astype(np.float32),
        }
        for _ in range(count)
    ]


def no_op_policy(front: np.ndarray, wrist: np.ndarray, state: np.ndarray) -> np.ndarray:
    """(16, 7) zeros. Raises ValueError unless what arrived is an observation."""
    if front.shape != FRAME or wrist.shape != FRAME or state.shape != (STATE_SIZE,):
        raise ValueError(f"{front.shape}, {wrist.shape} and {state.shape} arrived.")
    return np.zeros(CHUNK, np.float32)
