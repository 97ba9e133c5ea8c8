"""What is compared: the policy we ship, and its peers at equal parameters, data and steps.

An arm is a policy with how it is trained and the conditions that it is measured under. A study is
the tasks, training seeds and sizes of one comparison; its folder holds

    OUT/study.json                       the sizes and the data, so that none are mixed
    OUT/<arm>/<task>-<seed>/checkpoint   the training, with metrics.jsonl
    OUT/<arm>/<task>-<seed>/eval         eval.json
    OUT/<arm>/<task>-<seed>/held_out.json
    OUT/chunk_latency.json               of all arms, measured in turn
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError
from loopdit.whole_file import whole_file


class Condition(NamedTuple):
    """Loops K, and denoising steps; 0 is the policy's default, 10 of ours."""

    loops: int
    steps: int


@dataclass(frozen=True)
class Arm:
    """A policy of the comparison. `options` are of its training program: policy-train's, or with
    `lerobot` those of lerobot_policy.py. `extra` ones are run only when they are named. `longer`:
    how many times the study's steps it is trained for; `alone`: the one K that a checkpoint of our
    own model has."""

    name: str
    title: str
    options: tuple[str, ...]
    conditions: tuple[Condition, ...]
    lerobot: bool = False
    extra: bool = False
    longer: int = 1
    alone: int = 0


# Without it `stack` overfits (docs/experiments/2026-11-25-in-flight.md).
_SHIFT = "augment.shift=0.06"


def _ours(name: str, title: str, blocks: int, loops: int, *options: str) -> Arm:
    size = (f"policy.blocks={blocks}", f"policy.max_loops={loops}")
    conditions = tuple(Condition(k, 0) for k in range(1, loops + 1))
    return Arm(name, title, (*size, _SHIFT, *options), conditions)


def _alone(loops: int, longer: int = 1) -> Arm:
    """Our block, trained for one K and for no other."""
    name = f"alone-{loops}" if longer == 1 else f"alone-{loops}-long"
    title = f"one block, trained for K = {loops} alone"
    if loops == 1:
        title += ", a plain DiT of matched parameters"
    if longer > 1:
        title += f", {longer} times the steps"
    size = (f"policy.max_loops={loops}", f"policy.min_loops={loops}")
    one = (Condition(loops, 0),)
    return Arm(name, title, (*size, _SHIFT), one, extra=longer > 1, longer=longer, alone=loops)


# The scheduler and the steps that it was trained with, and as many steps as ours take.
_LEROBOT_STEPS = (Condition(1, 100), Condition(1, 10))


def _lerobot(name: str, title: str, *options: str, extra: bool = False) -> Arm:
    return Arm(name, title, options, _LEROBOT_STEPS, lerobot=True, extra=extra)


SHIP, WIDE = "ship", "wide"
OURS = (SHIP, WIDE)  # what peers are compared with; the first has a training for each K alone
ARMS = {
    arm.name: arm
    for arm in (
        _ours(SHIP, "ours: one block, four loops, one way", 1, 4, "policy.topology=one_way"),
        _ours("depth", "plain DiT of matched depth: four blocks, unshared", 4, 1),
        *(_alone(loops) for loops in range(1, 5)),
        # The shape of the shipped bundle. As served on a CPU three of its loops take no longer than
        # the four unshared blocks above.
        _ours(WIDE, "ours at width 192: one block, four loops", 1, 4, "policy.width=192"),
        # What the time of training every K buys a model of one loop.
        _alone(1, longer=2),
        _ours("two", "ours with two blocks, two loops", 2, 2),
        _ours("dense", "dense canvas: one block, four loops", 1, 4, "policy.topology=dense"),
        # A tenth of our learning rate, after a warm-up of 500 steps: for a longer study.
        _lerobot("lerobot", "LeRobot's diffusion policy, its own learning settings", extra=True),
        _lerobot(
            "lerobot-1e-3",
            "LeRobot's diffusion policy at our learning rate",
            *("--set", "optimizer_lr=1e-3"),
        ),
        _lerobot(
            "lerobot-resnet18",
            "LeRobot's diffusion policy with its own encoder, ResNet-18",
            *("--size", "resnet18"),
            extra=True,
        ),
    )
}


@dataclass(frozen=True)
class Study:
    """One comparison; `windows` are held-out ones that the error is measured on."""

    tasks: Sequence[str] = ("lift", "stack")
    seeds: Sequence[int] = (0, 1, 2)
    steps: int = 10_000
    episodes: int = 200
    windows: int = 256
    data: Path = Path("outputs/demos")
    out: Path = Path("outputs/peers")

    def folder(self, arm: Arm, task: str, seed: int) -> Path:
        """Where everything of one training lies."""
        return self.out / arm.name / f"{task}-{seed}"

    def steps_of(self, arm: Arm) -> int:
        """Optimizer steps that the arm is trained for."""
        return self.steps * arm.longer

    def store(self, task: str) -> Path:
        """The demonstrations."""
        return self.data / f"{task}.zarr"

    def demonstrations(self) -> dict[str, dict[str, Any]]:
        """Of each task whose store is here, its digest and how many episodes it has."""
        here = [task for task in self.tasks if self.store(task).exists()]
        stores = {task: EpisodeStore.open(self.store(task)) for task in here}
        return {
            task: {"digest": store.digest(), "episodes": len(store.episodes)}
            for task, store in stores.items()
        }

    def require_demonstrations(self) -> None:
        """Raise ConfigError for a task whose store is not here."""
        for task in self.tasks:
            if not self.store(task).exists():
                raise ConfigError(
                    f"there are no demonstrations at {self.store(task)}. Record some: "
                    f"policy-collect env={task} episodes=3000 out={self.store(task)}"
                )

    def known(self) -> dict[str, dict[str, Any]]:
        """Of each task the demonstrations of this folder's trainings, and those that are here."""
        path = self.out / "study.json"
        began: Any = json.loads(path.read_text())["data"] if path.exists() else {}
        return began | self.demonstrations()

    def take_up(self) -> None:
        """Write sizes and data into a new folder. Raises ConfigError for a folder of other ones."""
        sizes = {name: asdict(self)[name] for name in ("steps", "episodes", "windows")}
        path, data = self.out / "study.json", self.demonstrations()
        if path.exists():
            there: Any = json.loads(path.read_text())
            known = there.pop("data")
            if there != sizes:
                raise ConfigError(f"{path} says {there}, not {sizes}. Choose another --out.")
            for task in known.keys() & data.keys():
                if known[task] != data[task]:
                    raise ConfigError(
                        f"{path} says that {task} has {known[task]}, not {data[task]} as in "
                        f"{self.store(task)}. Choose another --out, or the data that it began with."
                    )
            data = known | data
        self.out.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_text(json.dumps(sizes | {"data": data}) + "\n")
