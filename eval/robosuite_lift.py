"""Times robosuite's Lift, by robosuite's own Python: `env_bench` runs this file as a script.

It imports nothing of loopdit, whose MuJoCo robosuite cannot use. One line in, "SECONDS", is
answered by "rate STEPS_PER_SECOND": random actions, two cameras, resets not counted.
"""

# robosuite lives in an environment of its own.
# pyright: reportMissingImports=false, reportMissingModuleSource=false

import os
import sys
import time

import numpy as np

_EPISODE = 100


def main() -> None:
    """Answer lines until the input ends."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    size = int(sys.argv[1])
    import mujoco
    import robosuite

    env = robosuite.make(
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
