"""policy-eval: drive an environment with a policy in closed loop and say how often it succeeds.

Every policy and every depth starts from the same held-out seeds. Depths take turns on each seed,
so that a change in the machine's load falls on all of them alike.
"""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from loopdit.command import Command, option, run_command
from loopdit.datasets.spec import Observation
from loopdit.envs.registry import ENV_NAMES, make_env
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment
from loopdit.eval.policy_sources import SHIPPED, PolicySource, open_policy
from loopdit.eval.report import write_report
from loopdit.eval.results import FILE, Row, require_writable, result_row, save_results
from loopdit.eval.rollout import Rollout, rollout
from loopdit.eval.seeds import FIRST_HELD_OUT_SEED
from loopdit.eval.table import results_table
from loopdit.eval.video import picture, require_encoder, write_mp4
from loopdit.progress import Progress

COMMAND = Command(
    name="policy-eval",
    folder="eval",
    summary="measure a policy's closed-loop success, with intervals, at each compute depth.",
    examples=(
        "policy-eval env=lift loops=[1,2,3]",
        "policy-eval policy=tcp://127.0.0.1:5555 loops=[1,2,3,4] episodes=50",
        "policy-eval policy=outputs/bundle env=lift videos=2 out=outputs/eval",
        "policy-eval policy=replay data=lift.zarr out=outputs/eval append=true",
    ),
)
_VIDEOS = "videos"
# A looping video stands still on its end for this long, so that the outcome can be seen.
_LAST_PICTURE_S = 1.0
_IMAGE_SIZE = 64  # for a policy that does not say what it looks at


@dataclass(frozen=True)
class EvalConfig:
    """Which policy, where, how often, and what to write."""

    policy: str = option(
        SHIPPED,
        "tcp://HOST:PORT, a bundle folder, shipped, expert, zeros, random, untrained or replay "
        "(needs data=)",
    )
    env: str = option("lift", f"environment: {', '.join(ENV_NAMES)}")
    loops: list[int] = option([1, 2, 3, 4], "compute depths K to measure")
    steps: int = option(0, "denoising steps; 0 is the policy's default")
    episodes: int = option(50, "rollouts at each depth")
    seed: int = option(FIRST_HELD_OUT_SEED, "first seed; demonstrations use seeds below 1000000")
    execute_horizon: int = option(8, "actions of a chunk that are executed before the next one")
    videos: int = option(0, "how many of the first rollouts at each depth become videos")
    bundle: str = option("", "bundle whose shape policy=untrained takes; empty: the shipped one")
    data: str = option("", "episode store that policy=replay plays")
    label: str = option("", "what tables call this policy")
    out: str = option("outputs/eval", f"folder for {FILE}, report.html and {_VIDEOS}/")
    append: bool = option(False, f"add to the {FILE} at out=, replacing rows measured again")

    def __post_init__(self) -> None:
        least = {"steps": 0, "episodes": 1, "seed": 0, "execute_horizon": 1, "videos": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {value}.")
        if not self.loops or min(self.loops) < 1 or len(set(self.loops)) < len(self.loops):
            raise ConfigError(
                f"loops={self.loops} must be a list of different depths of at least 1, "
                f"such as loops=[1,2,3]."
            )


def main() -> None:
    """Entry point of `policy-eval`."""
    run_command(COMMAND, EvalConfig, run)


def run(config: EvalConfig) -> None:
    """Evaluate, write the results, print a table. What stops it, finished rollouts are kept."""
    folder = Path(config.out)
    require_writable(folder, config.append)
    rows: list[Row] = []
    try:
        evaluate(config, rows)
    except BaseException:
        if rows:
            save_results(folder, rows, config.append)
            counts = ", ".join(f"{row['episodes']} of {config.episodes}" for row in rows)
            sys.stdout.write(f"\nstopped; finished rollouts are in {folder / FILE}: {counts}\n")
        raise
    save_results(folder, rows, config.append)
    report = write_report(folder)
    console = Console()
    console.print(results_table(rows, title=f"{config.env}: success in closed loop"))
    console.print(f"Results: {folder / FILE}   Report: {report}", soft_wrap=True)


def evaluate(config: EvalConfig, rows: list[Row]) -> None:
    """Add one row of results for each depth to `rows`, as far as it gets. Videos are written as
    their rollouts end.

    Raises ConfigError, SpecMismatch, RenderingError, ServerError and what opening the policy
    raises, all before the first rollout but for a server that fails later.
    """
    if config.videos:
        require_encoder()
    with open_policy(config.policy, config.bundle, config.data) as source:
        depths = source.chosen_loops(config.loops)
        env = _matching_env(config, source)
        try:
            evaluation = _Evaluation(config, source, env, depths)
            try:
                evaluation.run()
            finally:
                rows += evaluation.rows()
        finally:
            env.close()


def _matching_env(config: EvalConfig, source: PolicySource) -> Environment:
    size = source.spec.cameras[0].shape[0] if source.spec else _IMAGE_SIZE
    env = make_env(config.env, size)
    if source.spec is not None:
        source.spec.require_equal(
            env.policy_spec,
            f"the policy {config.policy}",
            f"the environment {config.env}",
            "Evaluate a policy in the environment that its demonstrations come from.",
        )
    return env


class _Evaluation:
    """One policy in one environment: all seeds, at all depths."""

    def __init__(
        self, config: EvalConfig, source: PolicySource, env: Environment, depths: list[int]
    ) -> None:
        self._config = config
        self._source = source
        self._env = env
        self._steps = config.steps or source.steps
        self._rollouts: dict[int, list[Rollout]] = {loops: [] for loops in depths}
        self._videos: dict[int, list[dict[str, Any]]] = {loops: [] for loops in depths}

    def rows(self) -> list[Row]:
        """One for each depth that has finished a rollout."""
        return [self._row(loops) for loops, done in self._rollouts.items() if done]

    def run(self) -> None:
        """All seeds, the depths taking turns."""
        depths = list(self._rollouts)
        total = len(depths) * self._config.episodes
        label = f"evaluating {self._config.label or self._config.policy}"
        with Progress(label, total) as progress:
            for index in range(self._config.episodes):
                for place, loops in enumerate(depths):
                    self._one(index, loops)
                    progress.update(index * len(depths) + place + 1, self._note())

    def _one(self, index: int, loops: int) -> None:
        seed = self._config.seed + index
        recorder = _Recorder(self._env) if index < self._config.videos else None
        done = rollout(
            self._env,
            self._source.make(self._env, loops, self._steps),
            seed,
            self._config.execute_horizon,
            clock=time.perf_counter,
            on_observation=recorder.add if recorder else None,
        )
        self._rollouts[loops].append(done)
        if recorder:
            depth = f"_k{loops}" if loops else ""
            name = f"{_VIDEOS}/{_file_name(self._config, self._source)}{depth}_{seed}.mp4"
            recorder.write(Path(self._config.out, name))
            self._videos[loops].append({"file": name, "seed": seed, "success": done.success})

    def _note(self) -> str:
        return "success " + "  ".join(
            f"{f'K={loops}: ' if loops else ''}{sum(r.success for r in done)}/{len(done)}"
            for loops, done in self._rollouts.items()
            if done
        )

    def _row(self, loops: int) -> Row:
        condition = {
            "env": self._config.env,
            "policy": self._config.policy,
            "loops": loops or None,
            "steps": self._steps or None,
            "kind": self._source.kind,
            "label": self._config.label,
            "model_id": self._source.model_id,
            "instruction": self._env.instruction,
            "execute_horizon": self._config.execute_horizon,
            "videos": self._videos[loops],
            "command": shlex.join([COMMAND.name, *sys.argv[1:]]),
        }
        return result_row(condition, self._rollouts[loops], self._env.control_period_s)


class _Recorder:
    """The pictures of one rollout."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._pictures: list[np.ndarray] = []

    def add(self, observation: Observation) -> None:
        cameras = [observation[camera.name] for camera in self._env.policy_spec.cameras]
        self._pictures.append(picture(self._env.render(), cameras))

    def write(self, path: Path) -> None:
        period_s = self._env.control_period_s
        still = [self._pictures[-1]] * round(_LAST_PICTURE_S / period_s)
        write_mp4(path, self._pictures + still, period_s)


def _file_name(config: EvalConfig, source: PolicySource) -> str:
    """Label or kind, and which model, in letters that every file system and URL takes."""
    name = f"{config.label or source.kind} {source.model_id or ''}".lower()
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")
