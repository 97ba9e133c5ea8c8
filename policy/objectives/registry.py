"""The objective that a configuration asks for."""

from loopdit.policy.objectives.diffusion import Diffusion, alpha_table
from loopdit.policy.objectives.flow import Flow
from loopdit.policy.objectives.objective import FLOW, REGRESSION, Objective, ObjectiveConfig
from loopdit.policy.objectives.regression import Regression


def make_objective(config: ObjectiveConfig) -> Objective:
    """Without the gripper's part, which needs the spec: see `gripper.with_gripper`.

    Raises ConfigError where a diffusion's noise schedule needs a package that is missing.
    """
    if config.kind == FLOW:
        return Flow(config.chosen_sampler)
    if config.kind == REGRESSION:
        return Regression()
    table = alpha_table(config.train_timesteps, config.beta_schedule)
    return Diffusion(config.kind, table, config.chosen_sampler, config.clip)
