"""Writes golden_states.json: for this MuJoCo version and every task, a digest of 20 expert steps.

`make goldens` runs it; a difference is a change of the simulation, and results from before and
after it do not compare. Entries of other versions are kept.
"""

import hashlib
import json
from importlib import metadata
from pathlib import Path

import numpy as np

from loopdit.envs.registry import ENV_NAMES, make_env

FILE = Path(__file__).with_name("golden_states.json")
STEPS = 20
SEED = 1_000_003
# Another processor may round otherwise: 1e-16 grows to less than 1e-9 in these steps.
DECIMALS = 4


def digest_of_states(name: str) -> str:
    """sha256 of joint and object positions and the commanded pose, to 0.1 mm and mrad, after the
    reset and after each of 20 expert steps."""
    env = make_env(name, image_size=16)
    env.observing = False
    env.reset(seed=SEED)
    expert, found = env.expert(), hashlib.sha256()
    for step in range(STEPS + 1):
        if step:
            env.step(expert.action())
        arm = env.arm
        state = (arm.data.qpos, arm.reference_position, arm.reference_quaternion)
        # Adding 0 makes -0 and 0 the same bytes.
        found.update((np.concatenate(state).round(DECIMALS) + 0.0).tobytes())
    env.close()
    return found.hexdigest()


def main() -> None:
    """Write the digests of the installed MuJoCo."""
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    version = f"mujoco {metadata.version('mujoco')}"
    golden[version] = {name: digest_of_states(name) for name in ENV_NAMES}
    FILE.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
