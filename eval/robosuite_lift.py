"""Times robosuite's Lift, by robosuite's own Python: `env_bench` runs this file as a script.

It imports nothing of loopdit, whose MuJoCo robosuite cannot use. One line in, "SECONDS", is
answered by "rate STEPS_PER_SECOND": random actions, two cameras, no shadows, resets not counted.
"""

import os
import sys
import time
from importlib import import_module
from typing import Any

import numpy as np

_EPISODE = 100


def main() -> None:
    """Answer lines until the input ends."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    size = int(sys.argv[1])
    # They are in this environment alone.
    mujoco, robosuite = import_module("mujoco"), import_module("robosuite")
    env: Any = robosuite.make(
        "Lift",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=True,
        use_camera_obs=True,
        camera_names=["agentview", "robot0_eye_in_hand"],
        camera_heights=size,
        camera_widths=size,
        control_freq=20,  # its default, and 25 physics steps, as many as ours
        horizon=_EPISODE,
        ignore_done=True,
        hard_reset=False,
    )
    rng = np.random.default_rng(0)
    low, high = env.action_spec
    env.reset()
    # As in our pictures. With its own shadows and mirrors it takes twice the time.
    flags = env.sim._render_context_offscreen.scn.flags
    flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    _say(f"ready robosuite {robosuite.__version__}, mujoco {mujoco.__version__}")
    steps = 0
    for line in sys.stdin:
        played, spent = 0, 0.0
        while spent < float(line):
            if steps == _EPISODE:
                env.reset()
                steps = 0
            began = time.perf_counter()
            env.step(rng.uniform(low, high))
            spent += time.perf_counter() - began
            played += 1
            steps += 1
        _say(f"rate {played / spent}")
    env.close()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
