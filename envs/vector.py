"""Several environments at once, one process each, as a Gymnasium vector environment.

Frames come back through shared memory, so that only actions, rewards and infos are pickled.
Knows nothing of what an environment simulates; nothing is computed here.
"""

from functools import partial
from typing import Any

from gymnasium.vector import AsyncVectorEnv

from loopdit.envs.registry import make_env
from loopdit.errors import ConfigError


def make_vector_env(name: str, envs: int = 2, **settings: Any) -> AsyncVectorEnv:
    """`envs` environments `name`, each in a process of its own; `settings` are those of `make_env`.

    Observations, rewards and flags have a leading axis of `envs`. `reset(seed=5)` gives environment
    i the seed 5 + i, `reset(seed=[7, 3])` one each; then states and pixels are those of the single
    environment with that seed. An environment that is done resets in the step *after* its last one
    (Gymnasium's NEXT_STEP autoreset): that step ignores its action, has reward 0 and returns the
    first observation of an episode whose seed comes from the environment's own generator, as
    `reset()` without a seed does.

    The processes are spawned, because a forked OpenGL context does not work: a script that calls
    this at its top level needs `if __name__ == "__main__":`. They end when this process does, and
    with `close()`. Raises ConfigError for `envs` below 1 and what `make_env` raises.
    """
    if envs < 1:
        raise ConfigError(f"envs={envs} is not a number of environments. Use 1 or more.")
    one = partial(make_env, name, **settings)
    return AsyncVectorEnv([one] * envs, shared_memory=True, context="spawn", daemon=True)
