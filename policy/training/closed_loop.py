"""Success in closed loop while training goes on: a snapshot, another process, the best one kept.

    out/evaluations/step-000500/    a snapshot's evaluation: what policy-eval writes, eval.log
    out/best/                       the checkpoint with the highest success so far

Every `evaluate.every` steps the weights that would be served are written aside and evaluated by
policy-eval on selection seeds, in a process of low priority that training never waits for. One
runs at a time; a snapshot that is due meanwhile waits, and gives its place to a newer one. The
last is waited for when training has ended. An evaluation that fails is told of and changes
nothing. After a resume what was measured counts, and what was interrupted goes on where it was.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loopdit.command import option
from loopdit.errors import ConfigError, LoopditError
from loopdit.policy.checkpoint import CheckpointContent, copy_policy, write_checkpoint

EVALUATIONS, BEST = "evaluations", "best"
_RESULTS, _SNAPSHOT, _LOG = "eval.json", "snapshot", "eval.log"
# `policy` may not import `eval`, which knows environments: it is a program to us.
_PROGRAM = ("-m", "loopdit.policy.training.beside", "loopdit.eval.evaluate")
_SELECTION_SEEDS = range(800_000, 900_000)  # `loopdit.eval.seeds` says so to policy-eval
_TRIAL_S = 300.0


@dataclass(frozen=True)
class EvaluateConfig:
    """Closed-loop evaluation beside training; none unless an environment is named."""

    env: str = option("", "environment to evaluate snapshots in, as lift; empty: none")
    every: int = option(1000, "steps between two snapshots")
    episodes: int = option(20, "rollouts of a snapshot")
    loops: int = option(0, "compute depth K to evaluate; 0: the deepest")
    seed: int = option(_SELECTION_SEEDS.start, "first seed; those for selection are from 800000 on")
    options: list[str] = option([], "more of policy-eval's options, as ['delay=[1]','workers=2']")

    def __post_init__(self) -> None:
        for name, least in {"every": 1, "episodes": 1, "loops": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"evaluate.{name}={getattr(self, name)} must be at least {least}."
                )
        if any(s not in _SELECTION_SEEDS for s in (self.seed, self.seed + self.episodes - 1)):
            raise ConfigError(
                f"evaluate.seed={self.seed}: each of the {self.episodes} must be a selection seed, "
                f"from {_SELECTION_SEEDS.start} up to below {_SELECTION_SEEDS.stop}."
            )

    def require_alone(self, patience: int) -> None:
        """Raise ConfigError where two ways would choose the best checkpoint."""
        if self.env and patience:
            raise ConfigError(
                f"evaluate.env={self.env} and patience={patience} would each keep its own best "
                f"checkpoint: by success, and by held-out error. Give one."
            )


@dataclass(frozen=True)
class Evaluated:
    """What policy-eval measured of the snapshot of one step."""

    step: int
    episodes: int
    successes: int
    ci95: tuple[float, float]

    @property
    def success_rate(self) -> float:
        """Of all episodes."""
        return self.successes / self.episodes

    def to_dict(self) -> dict[str, Any]:
        """For metrics.jsonl."""
        return {
            "episodes": self.episodes,
            "successes": self.successes,
            "success_rate": self.success_rate,
            "ci95": list(self.ci95),
        }


class ClosedLoop:
    """The evaluations of one training. `say` gets a line for people, `record` each result."""

    def __init__(
        self,
        config: EvaluateConfig,
        out: Path,
        max_loops: int,
        say: Callable[[str], None],
        record: Callable[[Evaluated], None],
    ) -> None:
        self.config = config
        self._out = out
        self._max_loops = max_loops
        self._say = say
        self._record = record
        self._running: tuple[int, subprocess.Popen[bytes]] | None = None
        self._waiting: int | None = None
        self._done: dict[int, Evaluated] = {}

    def take_up(self, step: int) -> None:
        """Go on at `step`: forget what is later, keep what is measured, begin what is not."""
        for folder in sorted((self._out / EVALUATIONS).glob("step-*")):
            number = int(folder.name.removeprefix("step-"))
            if number > step:
                shutil.rmtree(folder)
            elif found := _result(folder, number):
                self._done[number] = found
            elif (folder / _SNAPSHOT).exists():
                self._waiting = number  # the newest, as they are in order
        self._keep_best()

    def snapshot(self, step: int, content: CheckpointContent) -> None:
        """Evaluate these weights as soon as nothing else is being evaluated."""
        folder = self._folder(step)
        if step in self._done or (folder / _SNAPSHOT).exists():
            return  # by the training that this one resumes
        try:
            write_checkpoint(folder / _SNAPSHOT, content)
        except LoopditError as error:
            self._say(f"no evaluation of step {step}: {error}")
            return
        if self._waiting is not None:
            shutil.rmtree(self._folder(self._waiting), ignore_errors=True)
            self._say(f"step {self._waiting} is not evaluated: step {step} is due, and one runs")
        self._waiting = step
        self.poll()

    def poll(self) -> None:
        """Take a result if there is one, and begin what waits. Waits for nothing."""
        if self._running is not None:
            step, process = self._running
            if process.poll() is None:
                return
            self._running = None
            self._take(step, process.returncode)
        if self._waiting is not None:
            step, self._waiting = self._waiting, None
            self._running = step, _start(self.config, self._folder(step), self._max_loops)

    def finish(self) -> Evaluated | None:
        """Wait for what is being evaluated; the best of all, None if none came to an end."""
        self.poll()
        while self._running is not None:
            step, process = self._running
            self._say(f"waiting for the evaluation of step {step}")
            process.wait()
            self.poll()
        return self.best

    def close(self) -> None:
        """End what is being evaluated; a resumed training begins it again."""
        if self._running is not None:
            _end(self._running[1])

    @property
    def results(self) -> list[Evaluated]:
        """In the order of their steps."""
        return [self._done[step] for step in sorted(self._done)]

    @property
    def best(self) -> Evaluated | None:
        """Of the highest success; of the later step among equals, whose average is older."""
        return max(self._done.values(), key=lambda r: (r.success_rate, r.step), default=None)

    def _take(self, step: int, status: int) -> None:
        folder = self._folder(step)
        found = _result(folder, step) if status == 0 else None
        if found is None:
            self._say(f"the evaluation of step {step} failed: {_last_line(folder / _LOG)}")
            shutil.rmtree(folder / _SNAPSHOT, ignore_errors=True)
            return
        self._done[step] = found
        self._record(found)
        low, high = found.ci95
        self._say(
            f"step {step}: {found.successes} of {found.episodes} succeed in {self.config.env} "
            f"({found.success_rate:.0%}, 95% between {low:.0%} and {high:.0%})"
        )
        self._keep_best()

    def _keep_best(self) -> None:
        """Make out/best the best snapshot, and remove the others that are measured."""
        best = self.best
        for step in self._done:
            snapshot = self._folder(step) / _SNAPSHOT
            if snapshot.exists():
                if best is not None and step == best.step:
                    try:
                        copy_policy(snapshot, self._out / BEST)
                    except LoopditError as error:
                        self._say(f"step {step} is the best and stays in {snapshot}: {error}")
                        continue
                shutil.rmtree(snapshot)

    def _folder(self, step: int) -> Path:
        return self._out / EVALUATIONS / f"step-{step:06d}"


def require_evaluable(
    config: EvaluateConfig, out: Path, max_loops: int, content: CheckpointContent
) -> None:
    """Raise ConfigError where the environment cannot be evaluated in: tried on one episode.

    So that a wrong name, a missing package or another spec is said before hours of training.
    """
    folder = out / EVALUATIONS / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        write_checkpoint(folder / _SNAPSHOT, content)
        process = _start(replace(config, episodes=1), folder, max_loops)
        try:
            status = process.wait(_TRIAL_S)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            _end(process)
        why = _last_line(folder / _LOG)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if status != 0:
        raise ConfigError(f"evaluate.env={config.env} cannot be evaluated in: {why}")


def forget(out: Path) -> None:
    """Remove the evaluations of an earlier training in `out`, and its best checkpoint."""
    for name in (EVALUATIONS, BEST):
        shutil.rmtree(out / name, ignore_errors=True)


def _start(config: EvaluateConfig, folder: Path, max_loops: int) -> subprocess.Popen[bytes]:
    arguments = [
        f"policy={_quoted(folder / _SNAPSHOT)}",
        f"env={_quoted(config.env)}",
        f"out={_quoted(folder)}",
        f"episodes={config.episodes}",
        f"loops=[{config.loops or max_loops}]",
        f"seed={config.seed}",
        "purpose=selection",
        "controls=false",
        *config.options,
    ]
    with (folder / _LOG).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *_PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for training, which ends this itself
        )


def _quoted(value: str | Path) -> str:
    """As policy-eval takes a text with blanks, commas and the like."""
    return "'" + str(value).replace("'", "\\'") + "'"


def _result(folder: Path, step: int) -> Evaluated | None:
    """What eval.json says, None where it is missing or unreadable."""
    try:
        content: Any = json.loads((folder / _RESULTS).read_text())
        rows: list[Mapping[str, Any]] = content["results"]
        low, high = rows[0]["ci95"]
        episodes, successes = (sum(row[n] for row in rows) for n in ("episodes", "successes"))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return Evaluated(step, int(episodes), int(successes), (float(low), float(high)))


def _last_line(log: Path) -> str:
    """The end of what an evaluation printed: its error, if it is one of ours."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError as error:
        return str(error)
    return next((line for line in reversed(lines) if line), f"nothing is in {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
