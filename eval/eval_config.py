"""The options of `policy-eval`, and what can be said of them before anything is opened."""

from dataclasses import dataclass
from typing import Any

from loopdit.command import option
from loopdit.deploy.backends import BACKEND_NAMES
from loopdit.deploy.bundle.manifest import FP32, PRECISIONS
from loopdit.deploy.robot.executions import EXECUTIONS, require_execution
from loopdit.deploy.serving.offer import MAX_STEPS
from loopdit.envs.registry import ENV_NAMES
from loopdit.envs.variation import FORMS as VARIATIONS
from loopdit.envs.variation import parse_variation
from loopdit.errors import ConfigError
from loopdit.eval.rollouts.delays import FORMS as DELAYS
from loopdit.eval.rollouts.delays import parse_delay
from loopdit.eval.rollouts.depth import FORMS as DEPTHS
from loopdit.eval.rollouts.depth import parse_adaptive
from loopdit.eval.rollouts.faults import FORMS as FAULTS
from loopdit.eval.rollouts.faults import parse_faults
from loopdit.eval.rollouts.policy_sources import SHIPPED
from loopdit.eval.runs.pools import LAUNCHER_HELP, require_launcher
from loopdit.eval.seeds import EVALUATION_PURPOSES, SEEDS, require_purpose

AUTO = "auto"  # of backend= as of episodes=
# Least and most; a server does not do more denoising steps either.
_WHOLE = {
    "loops": (1, None),
    "steps": (0, MAX_STEPS),
    "execute_horizon": (1, None),
    "divide": (1, None),
}

# Axes of the comparison, the slowest first; `steps` and `loops` follow.
_AXES = (
    *("rate_hz", "divide", "variation", "fault", "execution", "execute_horizon", "delay"),
    "adaptive",
)


@dataclass(frozen=True)
class EvalConfig:
    """Which policy, where, under which conditions, how often, and what to write.

    A list means each of its values with each of the others: the conditions.
    """

    policy: str = option(
        SHIPPED,
        "tcp://HOST:PORT, openpi://HOST:PORT, a bundle or checkpoint folder, shipped, expert, "
        "informed-expert (for execution=informed), foreseeing-expert, zeros, random, untrained or "
        "replay (needs data=)",
    )
    env: str = option(
        "lift",
        f"environment: {', '.join(ENV_NAMES)}; metaworld/reach-v3 and such, or tcp://HOST:PORT",
    )
    loops: list[int] = option([1, 2, 3, 4], "compute depths K to measure")
    adaptive: list[str] = option(
        ["none"], f"whether fewer loops than K do where they are enough, for checkpoints: {DEPTHS}"
    )
    steps: Any = option([0], "denoising steps, one number or a list; 0 is the policy's default")
    delay: list[str] = option(["0"], f"control steps until a chunk comes: {DELAYS}")
    execution: list[str] = option(
        ["aligned"],
        f"how chunks are played: {', '.join(EXECUTIONS)} (of policies that are told what is in "
        f"flight)",
    )
    execute_horizon: list[int] = option(
        [8], "actions of a chunk that are executed before the next one"
    )
    rate_hz: list[float] = option([0.0], "actions a second; 0 is the environment's own")
    divide: list[int] = option(
        [1],
        "control steps that each action is spread over: with rate_hz=[50], 5 for a 10 Hz policy",
    )
    variation: list[str] = option(
        ["none"], f"what differs between episodes beyond the task: {VARIATIONS}"
    )
    fault: list[str] = option(["none"], f"what goes wrong with what is seen: {FAULTS}")
    episodes: int | str = option(
        50, "rollouts under each condition, or auto: until the conditions are told apart"
    )
    max_episodes: int = option(400, "where episodes=auto ends undecided")
    seed: int | None = option(
        None, "first seed; null: the first for the purpose, 900000 or 800000 for selection"
    )
    purpose: str = option(
        "test", "what the seeds are for: test, or selection (to choose a checkpoint or an option)"
    )
    controls: bool = option(True, "drive zeros, random actions and the expert beside the policy")
    workers: int = option(
        1, "processes, 0 for one a core; from 2 on they disturb each other's latencies"
    )
    launcher: str = option("processes", LAUNCHER_HELP)
    videos: int = option(0, "videos of each condition, a success and a failure in turn")
    image_size: int = option(0, "height and width of frames, pixels; 0 is what the policy wants")
    backend: str = option(
        AUTO, f"what computes a bundle, in this process: {AUTO}, {', '.join(BACKEND_NAMES)}"
    )
    precision: str = option(
        FP32, f"what it computes in, of those that backend= has: {', '.join(PRECISIONS)}"
    )
    bundle: str = option("", "bundle whose shape policy=untrained takes; empty: the shipped one")
    data: str = option("", "episode store that policy=replay plays")
    openpi_keys: str = option(
        "", "an openpi server's names of observations: images.front=observation/image,..."
    )
    label: str = option("", "what tables call this policy")
    out: str = option("outputs/eval", "folder for eval.json, rollouts.jsonl, report.html, videos/")
    append: bool = option(False, "add to the results at out=, replacing rows measured again")

    def __post_init__(self) -> None:
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed={self.seed} must be at least 0.")
        least = {"videos": 0, "workers": 0, "image_size": 0, "max_episodes": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {value}.")
        if self.purpose not in EVALUATION_PURPOSES:
            known = ", ".join(EVALUATION_PURPOSES)
            raise ConfigError(f"purpose={self.purpose} is unknown. Use one of: {known}.")
        require_launcher(self.launcher)
        if not self.sequential and not (isinstance(self.episodes, int) and self.episodes >= 1):
            raise ConfigError(f"episodes={self.episodes} must be at least 1, or {AUTO}.")
        if not self.out:
            raise ConfigError("out= is empty. Name a folder for the results, such as outputs/eval.")
        self._require_lists()
        require_purpose(self.first_seed, self.most_episodes, self.purpose)

    @property
    def first_seed(self) -> int:
        """The first of the seeds that are run."""
        return SEEDS[self.purpose].start if self.seed is None else self.seed

    @property
    def sequential(self) -> bool:
        """Whether the number of episodes follows from their outcomes."""
        return self.episodes == AUTO

    @property
    def most_episodes(self) -> int:
        """Seeds that are run, at most."""
        return self.max_episodes if self.sequential else int(self.episodes)

    @property
    def axes(self) -> dict[str, list[Any]]:
        """What each field of a Condition takes, the slowest first; see `plan.combinations`."""
        axes: dict[str, list[Any]] = {name: list(getattr(self, name)) for name in _AXES}
        return {**axes, "steps": self.all_steps, "loops": list(self.loops)}

    @property
    def all_steps(self) -> list[int]:
        """`steps` as a list."""
        return list(self.steps) if isinstance(self.steps, list) else [self.steps]

    def _require_lists(self) -> None:
        for name, values in self.axes.items():
            for value in values:
                _require_number(name, value)
            if not values or len(set(values)) < len(values):
                such = values[0] if values else "..."
                raise ConfigError(
                    f"{name}={values} must be a list of different values, such as {name}=[{such}]."
                )
        for delay in self.delay:
            parse_delay(delay)
        for execution in self.execution:
            require_execution(execution)
        for fault in self.fault:
            parse_faults(fault)
        for adaptive in self.adaptive:
            parse_adaptive(adaptive)
        for variation in self.variation:
            parse_variation(variation)


def _require_number(name: str, value: Any) -> None:
    """Raise ConfigError for a value that the axis `name` cannot have."""
    if name == "rate_hz" and not value >= 0:
        raise ConfigError(f"rate_hz={value} must be at least 0.")
    if name not in _WHOLE:
        return
    least, most = _WHOLE[name]
    # steps= may be a number or a list, so that its type is not checked before.
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}={value} must be a whole number.")
    if value < least:
        raise ConfigError(f"{name}={value} must be at least {least}.")
    if most is not None and value > most:
        raise ConfigError(f"{name}={value} must be at most {most}.")
