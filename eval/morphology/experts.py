"""Search an expert for one of Gymnasium's runners and write it to a small file with its returns.

    python -m loopdit.eval.morphology.experts env=gymnasium/Swimmer-v5 out=outputs/experts

Every so many updates the present parameters run on a few starts of their own, and the best of them
are kept: both searches wander. The returns in the file are of starts that no choice has seen.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from loopdit.command import Command, option, run_command
from loopdit.envs.suites.locomotion import Locomotion, tasks
from loopdit.errors import ConfigError
from loopdit.eval.morphology.expert import Expert, GaitExpert, LinearExpert, save_expert
from loopdit.eval.morphology.recipes import (
    GaitRecipe,
    LinearRecipe,
    gait_maker,
    linear_maker,
    recipe_of,
)
from loopdit.eval.morphology.running import Run, run_expert, run_random
from loopdit.eval.morphology.search import RunningStatistics, cross_entropy, random_search
from loopdit.whole_file import require_folder

COMMAND = Command(
    name="python -m loopdit.eval.morphology.experts",
    folder="morphology_experts",
    summary="search an expert for a runner of Gymnasium, in minutes on one core.",
    examples=("python -m loopdit.eval.morphology.experts env=gymnasium/Swimmer-v5",),
)
# Seeds of episodes: searching draws from below the first, choosing and judging have their own.
_CHOOSING, _JUDGING = 1_000_000, 2_000_000
_CHOICES, _CHOOSING_EPISODES = 20, 10


@dataclass(frozen=True)
class ExpertsConfig:
    """Which runner, and where its expert goes."""

    env: str = option("???", "a runner as environments are named: gymnasium/Swimmer-v5")
    out: str = option("outputs/experts", "folder for TASK.json")
    seed: int = option(0, "of the search")
    updates: int = option(0, "updates of the search; 0: as the recipe has them")
    episodes: int = option(20, "episodes on fresh starts, for the returns in the file")

    def __post_init__(self) -> None:
        for name, least in {"updates": 0, "seed": 0, "episodes": 2}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}.")


def main() -> None:
    """Entry point of `python -m loopdit.eval.morphology.experts`."""
    run_command(COMMAND, ExpertsConfig, run)


def run(config: ExpertsConfig) -> None:
    """Search, write, and print the returns."""
    console = Console(highlight=False, soft_wrap=True)
    task = task_of(config.env)
    recipe = recipe_of(task)
    if config.updates:
        recipe = replace(recipe, search=replace(recipe.search, updates=config.updates))
    out = Path(config.out)
    require_folder(out)
    robot = Locomotion(task)
    began = time.process_time()
    found, episodes = search(robot, recipe, config.seed, console.print)
    about: dict[str, Any] = {
        "env": config.env,
        "package": robot.package,
        "recipe": asdict(recipe),
        "seed": config.seed,
        "episodes_searched": episodes,
        "cpu_seconds": round(time.process_time() - began),
    }
    path = out / f"{task}.json"
    kept = save_expert(found, path, about)  # judged as it is in the file, rounded
    about |= _judged(robot, kept, config.episodes)
    save_expert(kept, path, about)
    returns, chance = about["returns"], about["random_returns"]
    console.print(
        f"{config.env}: {returns['mean']:.0f} +- {returns['sd']:.0f} over {config.episodes} "
        f"starts, random {chance['mean']:.0f} +- {chance['sd']:.0f}; wrote {path}"
    )


def task_of(env: str) -> str:
    """The runner's own name. Raises ConfigError where `env` is none of Gymnasium's runners."""
    prefix, _, task = env.partition("/")
    if prefix != "gymnasium" or task not in tasks():
        known = ", ".join(f"gymnasium/{name}" for name in tasks())
        raise ConfigError(f"env={env} is none of Gymnasium's runners. They are: {known}.")
    return task


def search(
    robot: Locomotion,
    recipe: LinearRecipe | GaitRecipe,
    seed: int,
    say: Callable[[str], object],
) -> tuple[LinearExpert | GaitExpert, int]:
    """The best expert on the way of the recipe's search, and how many episodes that took."""
    rng = np.random.default_rng(seed)
    best: list[tuple[float, LinearExpert | GaitExpert]] = []
    played = 0

    def play(expert: Expert, steps: int | None = None) -> Run:
        nonlocal played
        played += 1
        return run_expert(robot, expert, int(rng.integers(_CHOOSING)), steps=steps)

    def choose(update: int, last: int, expert: LinearExpert | GaitExpert) -> None:
        if (update + 1) % max(1, last // _CHOICES) and update + 1 < last:
            return
        seeds = range(_CHOOSING, _CHOOSING + _CHOOSING_EPISODES)
        mean = float(np.mean([run_expert(robot, expert, seed).total for seed in seeds]))
        say(f"update {update + 1} of {last}: {mean:.0f}")
        if not best or mean > best[0][0]:
            best[:] = [(mean, expert)]

    if isinstance(recipe, LinearRecipe):
        statistics = RunningStatistics(recipe.observed)
        linear = linear_maker(robot, statistics)

        def score(parameters: np.ndarray) -> float:
            episode = play(linear(parameters))
            statistics.add(episode.observations[:, : statistics.size].astype(float))
            return episode.total - recipe.survival * len(episode.actions)

        random_search(
            score,
            np.zeros(robot.action_spec.shape[0] * recipe.observed),
            recipe.search,
            rng,
            lambda update, parameters: choose(update, recipe.search.updates, linear(parameters)),
        )
    else:
        gait, spread = gait_maker(robot)
        cross_entropy(
            lambda parameters: play(gait(parameters), recipe.steps).total,
            np.zeros(len(spread)),
            spread,
            recipe.search,
            rng,
            lambda update, parameters: choose(update, recipe.search.updates, gait(parameters)),
        )
    return best[0][1], played


def _judged(robot: Locomotion, expert: Expert, episodes: int) -> dict[str, Any]:
    seeds = range(_JUDGING, _JUDGING + episodes)
    own = [run_expert(robot, expert, seed).total for seed in seeds]
    chance = [run_random(robot, seed) for seed in seeds]
    return {"returns": _summary(own), "random_returns": _summary(chance)}


def _summary(returns: list[float]) -> dict[str, float]:
    return {
        "episodes": len(returns),
        "mean": round(float(np.mean(returns)), 1),
        "sd": round(float(np.std(returns, ddof=1)), 1),
        "least": round(min(returns), 1),
    }


if __name__ == "__main__":
    main()
