"""The options of control mode."""

from dataclasses import dataclass

from loopdit.command import option
from loopdit.deploy.robot.executions import EXECUTIONS, require_execution
from loopdit.errors import ConfigError


@dataclass(frozen=True)
class ControlConfig:
    """How `policy-serve mode=control` owns the loop."""

    rate_hz: float = option(50.0, "actions a second; a multiple of the policy's own rate")
    actions: str = option("tcp://127.0.0.1:5557", "where actions are published; port 0: any")
    observations: str = option("tcp://127.0.0.1:5558", "where observations are taken; port 0: any")
    execution: str = option("tracked", f"how chunks are played: {', '.join(EXECUTIONS)}")
    execute_horizon: int = option(8, "actions of a chunk that are executed before the next one")
    instruction: str = option("", "the task in words, where an observation does not say it")
    budget_s: float = option(0.0, "loops=auto: a chunk is to be there in this; 0: in a period")
    env: str = option("", "simulate a robot in this environment, in a process of its own")
    episodes: int = option(0, "with env: how many the simulated robot plays; 0: no end")

    def __post_init__(self) -> None:
        require_execution(self.execution)
        if not 0 < self.rate_hz <= 1000:
            raise ConfigError(f"control.rate_hz={self.rate_hz} must be above 0, at most 1000.")
        if self.execute_horizon < 1:
            raise ConfigError(f"control.execute_horizon={self.execute_horizon} must be at least 1.")
        if not 0 <= self.budget_s < 60 or self.episodes < 0:
            raise ConfigError(
                f"control.budget_s={self.budget_s} must be from 0 to 60, and control.episodes="
                f"{self.episodes} at least 0."
            )


def control_parts(rate_hz: float, policy_period_s: float) -> int:
    """How many control steps a control period of the policy is. Raises ConfigError unless whole."""
    parts = rate_hz * policy_period_s
    if parts < 0.5 or abs(parts - round(parts)) > 1e-6 * parts:
        own = 1 / policy_period_s
        raise ConfigError(
            f"control.rate_hz={rate_hz:g} is no multiple of the policy's own rate, {own:g} Hz. Use "
            f"{own * max(1, round(parts)):g}."
        )
    return round(parts)
