"""The pieces of a study, each a program with a result on the disk, and what runs them.

A piece is a training, an evaluation or an error of one arm, task and training seed, or the latency
of all arms. Knows nothing of the order in which somebody runs them, nor of other processes.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from arms import ARMS, Arm, Study
from collect import RunName, has_errors, has_latency, has_rollouts, step_of

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LATENCY = "latency"


class Piece(NamedTuple):
    """Something that is done or not. `run` writes what `done` looks for; `ready`: it can be run."""

    name: str
    folder: Path
    done: Callable[[], bool]
    run: Callable[[], None]
    ready: Callable[[], bool] = lambda: True


class Failed(Exception):
    """A program of a piece failed; its folder's log says why."""


class Runner:
    """Makes and runs the pieces of a study, from the repository's root as working folder.

    threads: of each training, so that two processes can share a machine. known: the runs (arm,
    task, training seed) that a record has already.
    """

    def __init__(
        self, study: Study, threads: int, repetitions: int, known: Collection[RunName] = ()
    ) -> None:
        self.study = study
        self._known = known
        self._threads = threads
        self._repetitions = repetitions
        self._suites = Path(os.environ.get("LOOPDIT_SUITES") or ".suites")

    def pieces(self, only: Sequence[str]) -> list[Piece]:
        """Of the arms `only`, or of all but the extra ones: each seed's before the next one's."""
        arms = [arm for arm in ARMS.values() if (arm.name in only if only else not arm.extra)]
        found = [
            piece
            for seed in self.study.seeds
            for task in self.study.tasks
            for arm in arms
            if (arm.name, task, seed) not in self._known
            for piece in self._of_training(arm, task, seed)
        ]
        if not only or LATENCY in only:
            found.append(self._latency())
        return found

    def _of_training(self, arm: Arm, task: str, seed: int) -> list[Piece]:
        folder = self.study.folder(arm, task, seed)
        name = f"{arm.name} {task} {seed}"

        def trained() -> bool:
            return step_of(folder) == self.study.steps_of(arm)

        return [
            Piece(f"{name} train", folder, trained, lambda: self._train(arm, task, seed)),
            Piece(
                f"{name} evaluate",
                folder,
                lambda: has_rollouts(folder, arm, self.study.episodes),
                lambda: self._evaluate(arm, task, seed),
                trained,
            ),
            Piece(
                f"{name} held out",
                folder,
                lambda: has_errors(folder, arm),
                lambda: self._held_out(arm, task, seed),
                trained,
            ),
        ]

    def _latency(self) -> Piece:
        task, seed = self.study.tasks[0], self.study.seeds[0]
        trained = {
            arm.name: step_of(self.study.folder(arm, task, seed)) == self.study.steps_of(arm)
            for arm in ARMS.values()
        }
        measured = [arm for arm in ARMS.values() if trained[arm.name]]
        return Piece(
            LATENCY,
            self.study.out,
            lambda: bool(measured) and has_latency(self.study.out, measured),
            lambda: self._measure_latency(measured, task, seed),
            lambda: all(trained[arm.name] or arm.extra for arm in ARMS.values()),
        )

    def _train(self, arm: Arm, task: str, seed: int) -> None:
        folder, data = self.study.folder(arm, task, seed), self.study.store(task)
        out, steps = folder / "checkpoint", self.study.steps_of(arm)
        if arm.lerobot:
            program = "scripts/peers/lerobot_policy.py"
            sizes = ["--steps", steps, "--seed", seed, "--threads", self._threads]
            words = ["train", data, out, *sizes, *arm.options]
            self._call(folder, self._lerobot, program, *words, threads=self._threads)
            return
        options = [f"data={data}", f"out={out}", f"steps={steps}", f"seed={seed}", *arm.options]
        if (out / "checkpoint.json").exists():
            options.append("resume=true")
        options.append(f"threads={self._threads}")
        self._call(folder, BIN / "policy-train", *options, threads=self._threads)

    def _evaluate(self, arm: Arm, task: str, seed: int) -> None:
        folder = self.study.folder(arm, task, seed)
        loops = sorted({condition.loops for condition in arm.conditions})
        steps = sorted({condition.steps for condition in arm.conditions})
        options = {
            "env": task,
            "loops": loops,
            "steps": steps,
            "episodes": self.study.episodes,
            "controls": "false",
            "label": arm.name,
            "out": folder / "eval",
        }
        asked = [f"{name}={value}".replace(" ", "") for name, value in options.items()]
        with self._opened(arm, folder) as policy:
            self._call(folder, BIN / "policy-eval", f"policy={policy}", *asked)

    def _held_out(self, arm: Arm, task: str, seed: int) -> None:
        folder, data = self.study.folder(arm, task, seed), self.study.store(task)
        sizes = ["--seed", seed, "--windows", self.study.windows]
        conditions = [f"{condition.loops}:{condition.steps}" for condition in arm.conditions]
        program, out = "scripts/peers/held_out.py", folder / "held_out.json"
        with self._opened(arm, folder) as policy:
            asked = [policy, data, out, *sizes, "--condition", *conditions]
            self._call(folder, sys.executable, program, *asked)

    def _measure_latency(self, arms: Sequence[Arm], task: str, seed: int) -> None:
        out = self.study.out
        with ExitStack() as stack:
            named: list[str] = []
            for arm in arms:
                folder = self.study.folder(arm, task, seed)
                policy = stack.enter_context(self._opened(arm, folder))
                conditions = ",".join(f"{loops}:{steps}" for loops, steps in arm.conditions)
                named.append(f"{arm.name}={policy}={conditions}")
            asked = ["--repetitions", self._repetitions, out / "chunk_latency.json", *named]
            self._call(out, sys.executable, "scripts/peers/chunk_latency.py", *asked)

    @contextmanager
    def _opened(self, arm: Arm, folder: Path) -> Generator[str]:
        """What `policy=` calls it: its folder, or the server that is up meanwhile."""
        checkpoint = folder / "checkpoint"
        if not arm.lerobot:
            yield str(checkpoint)
            return
        program = ["scripts/peers/lerobot_policy.py", "serve", str(checkpoint)]
        with (folder / "log.txt").open("a") as log:
            server = subprocess.Popen(
                [str(self._lerobot), *program],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment(1, self._lerobot),
            )
            try:
                assert server.stdout is not None
                ready, _, endpoint = server.stdout.readline().strip().partition(" ")
                if ready != "ready":
                    raise Failed(f"the server of {arm.name} did not start: see {folder}/log.txt")
                yield endpoint
            finally:
                server.terminate()
                server.wait()

    @property
    def _lerobot(self) -> Path:
        return self._suites / "lerobot" / "bin" / "python"

    def _call(self, folder: Path, program: str | Path, *words: object, threads: int = 1) -> None:
        """Run it to its end; a signal to this process ends it too. Raises Failed."""
        command = [str(program), *map(str, words)]
        with (folder / "log.txt").open("a") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment(threads, program)
            )
            try:
                code = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if code:
            raise Failed(f"{Path(command[0]).name} ended with {code}: see {folder}/log.txt")

    def _environment(self, threads: int, program: str | Path) -> dict[str, str]:
        found = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if program == self._lerobot:
            found["PYTHONPATH"] = str(ROOT / "src")
        return found
