"""One demonstration: an expert labels every state, a perturbed copy of its action is executed.

T control steps; the same seed and noise give the same demonstration in any process.
"""

import numpy as np

from loopdit.datasets.episode import EXECUTED_ACTION, Episode
from loopdit.datasets.spec import TensorSpec
from loopdit.eval.environment import Environment
from loopdit.eval.perturb import NoiseConfig, Perturbation, draw_perturbation

# Sets the perturbation's random stream apart from the environment's, which has the seed itself.
_PERTURBATION_STREAM = 1


def demonstrate(env: Environment, seed: int, noise: NoiseConfig, hold_steps: int) -> Episode | None:
    """The episode that the expert demonstrates from `seed`, or None when it fails.

    It goes on for `hold_steps` control steps after success, so that the data shows what to do at
    the goal. The actions (T, A) are the expert's; the perturbed ones that were executed are the
    extra EXECUTED_ACTION, from which a policy learns what actions in flight do.
    """
    observation, _ = env.reset(seed=seed)
    expert = env.expert()
    longest = env.max_steps + hold_steps + 1
    perturbation = perturbation_of(seed, noise, env.policy_spec.action, longest)
    observations: list[dict[str, np.ndarray]] = []
    actions: list[np.ndarray] = []
    executed_actions: list[np.ndarray] = []
    at_goal = 0
    ended = False
    while not ended:
        action = expert.action()
        observations.append(observation)
        actions.append(action)
        executed = perturbation.apply(action, step=len(actions) - 1)
        executed_actions.append(executed)
        observation, _, terminated, truncated, info = env.step(executed)
        if info["unstable"]:
            return None
        at_goal += terminated
        ended = at_goal > hold_steps or truncated or len(actions) == longest
    if at_goal == 0:
        return None
    return Episode(
        observations={name: np.stack([o[name] for o in observations]) for name in observations[0]},
        actions=np.stack(actions),
        instruction=env.instruction,
        success=True,
        seed=seed,
        extras={EXECUTED_ACTION: np.stack(executed_actions).astype(np.float32)},
    )


def perturbation_of(seed: int, noise: NoiseConfig, action: TensorSpec, steps: int) -> Perturbation:
    """What perturbs the first `steps` steps of the episode with this seed."""
    rng = np.random.default_rng([_PERTURBATION_STREAM, seed])
    return draw_perturbation(noise, action, steps, rng)
