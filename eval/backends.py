"""policy-eval backends: what another back end or another precision costs in closed loop.

Each is evaluated as `policy-eval backend= precision=` does it, on the same seeds, into
OUT/ENV/BACKEND-PRECISION, and compared with the first of them pair by pair. What is finished there
is not run again. All comparisons of a call are one family, and p values are corrected for it.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from loopdit.command import Command, option
from loopdit.deploy.backends import BACKEND_NAMES
from loopdit.deploy.backends.registry import FP32, KINDS
from loopdit.errors import ConfigError
from loopdit.eval.compare import Member
from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.evaluate import run as evaluate
from loopdit.eval.reporting.comparison_table import comparison_table
from loopdit.eval.rollouts.policy_sources import SHIPPED
from loopdit.eval.runs.episode_runner import EpisodeRunner
from loopdit.eval.runs.journal import read_journal
from loopdit.eval.runs.preparation import prepare, setup_of
from loopdit.eval.runs.results import FILE, load_results
from loopdit.eval.statistics.comparison import (
    compare_rows,
    corrected,
    success_difference,
)
from loopdit.eval.statistics.matching import match_rows
from loopdit.eval.statistics.paired import Difference
from loopdit.eval.statistics.seed_pairs import Row, pair_by_seed, row_name
from loopdit.machine import machine_and_versions
from loopdit.subcommand import run_subcommand
from loopdit.whole_file import require_folder, whole_file

COMMAND = Command(
    name="policy-eval backends",
    folder="eval_backends",
    summary="what another back end or precision costs in closed loop, seed by seed.",
    examples=(
        "policy-eval backends",
        "policy-eval backends outputs/bundle env=[lift,stack] episodes=200",
        "policy-eval backends outputs/bundle backends=[fused:fp32,fused:bf16,onnxruntime:int8]",
    ),
)
PRICES_FILE = "backends.json"
_FORMAT, _FORMAT_VERSION = "loopdit-backends", 1


@dataclass(frozen=True)
class Choice:
    """A back end and what it computes in."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"


@dataclass(frozen=True)
class BackendsConfig:
    """The options of `policy-eval backends`."""

    policy: str = option(SHIPPED, "bundle to evaluate; the first argument is it, too")
    env: list[str] = option(["lift"], "environments")
    backends: list[str] = option(
        ["fused:fp32", "fused:bf16"],
        "NAME or NAME:PRECISION each, fp32 where none is said; the others are compared with the "
        "first",
    )
    loops: list[int] = option([1, 2, 3, 4], "compute depths K")
    episodes: int = option(200, "rollouts of each, under each K")
    seed: int | None = option(None, "first seed; null: the first that is for tests")
    workers: int = option(1, "processes, 0 for one a core")
    out: str = option("outputs/backends", f"folder for {PRICES_FILE} and the evaluations")

    def __post_init__(self) -> None:
        for name, values in {"env": self.env, "backends": self.choices}.items():
            if len(set(values)) < len(values):
                raise ConfigError(f"{name}={getattr(self, name)} names one twice. Name each once.")
        if not self.env:
            raise ConfigError("env=[] is empty: name at least one environment.")
        if len(self.choices) < 2:
            raise ConfigError(
                f"backends={self.backends} has nothing to compare with the first. Name two or more."
            )

    @property
    def choices(self) -> list[Choice]:
        """What `backends` says. Raises ConfigError for a back end or precision there is not."""
        return [_choice(text) for text in self.backends]

    def evaluation(self, env: str, choice: Choice) -> EvalConfig:
        """How one of them is evaluated."""
        return EvalConfig(
            policy=self.policy,
            env=env,
            loops=self.loops,
            episodes=self.episodes,
            seed=self.seed,
            controls=False,
            workers=self.workers,
            backend=choice.backend,
            precision=choice.precision,
            label=str(choice),
            out=str(Path(self.out, env.replace("/", "-"), f"{choice.backend}-{choice.precision}")),
        )


@dataclass(frozen=True)
class Price:
    """What `choice` changes in success against the first, over every environment and K.

    A start (environment and seed) is one observation, the mean over its K: they share its luck.
    """

    choice: str
    starts: int
    difference: Difference

    def sentence(self, first: str) -> str:
        """For people."""
        value, low, high = (
            100 * points
            for points in (self.difference.value, self.difference.low, self.difference.high)
        )
        return (
            f"{self.choice} against {first}, all K together: {value:+.2f} points "
            f"(95 % interval {low:+.2f} to {high:+.2f}) over {self.starts} starts."
        )


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-eval backends`; `argv` without the command's name."""
    run_subcommand(COMMAND, BackendsConfig, run, argv, places=("policy",))


def run(config: BackendsConfig) -> None:
    """Evaluate what is not there yet, compare, write and print."""
    require_folder(Path(config.out))
    evaluations = [config.evaluation(env, c) for env, c in product(config.env, config.choices)]
    # All of them before the first: what cannot run here is said before hours are spent.
    todo = [one for one in evaluations if not _is_finished(one)]
    for evaluation in todo:
        evaluate(evaluation)
    family, prices = compare(config)
    path = Path(config.out, PRICES_FILE)
    with whole_file(path) as aside:
        aside.write_text(json.dumps(_content(config, family, prices), indent=1))
    console = Console()
    console.print(comparison_table([(one.title, one.comparison) for one in family]))
    for price in prices:
        console.print(
            price.sentence(str(config.choices[0])), soft_wrap=True, markup=False, highlight=False
        )
    sys.stdout.write(f"Prices: {path}\n")


def compare(config: BackendsConfig) -> tuple[list[Member], list[Price]]:
    """Every environment and K of each choice against the first, and each choice's price.

    Reads finished evaluations.
    """
    first, *others = config.choices
    family: list[Member] = []
    prices: list[Price] = []
    for choice in others:
        changes: dict[tuple[str, int], list[float]] = {}
        for env in config.env:
            for a, b in match_rows(_rows(config, env, first), _rows(config, env, choice)).pairs:
                names = row_name(a), row_name(b)
                family.append(Member(env, f"{env}: {names[1]}", compare_rows(a, b, names)))
                pairs = pair_by_seed(a, b, names)
                outcomes = zip(pairs.seeds, pairs.success_a, pairs.success_b, strict=True)
                for seed, before, after in outcomes:
                    changes.setdefault((env, seed), []).append(float(after) - float(before))
        means = np.array([np.mean(of) for of in changes.values()])
        difference = success_difference(np.zeros_like(means), means)
        prices.append(Price(str(choice), len(means), difference))
    comparisons = corrected([member.comparison for member in family])
    return [
        replace(member, comparison=made) for member, made in zip(family, comparisons, strict=True)
    ], prices


def _choice(text: str) -> Choice:
    name, _, precision = text.partition(":")
    if name not in BACKEND_NAMES:
        raise ConfigError(
            f"backends= has {text!r}: {name!r} is no back end. Choose from: "
            f"{', '.join(BACKEND_NAMES)}."
        )
    have = KINDS[name].precisions
    if (precision or FP32) not in have:
        raise ConfigError(f"backends= has {text!r}: {name} has {', '.join(have)}.")
    return Choice(name, precision or FP32)


def _is_finished(evaluation: EvalConfig) -> bool:
    """Whether its results are there, of the very plan. Raises what opening the policy raises."""
    with EpisodeRunner(setup_of(evaluation)) as runner:
        digest = prepare(evaluation, runner).plan.digest
    runs = read_journal(Path(evaluation.out)).runs
    return bool(runs) and runs[-1].finished and runs[-1].digest == digest


def _rows(config: BackendsConfig, env: str, choice: Choice) -> list[Row]:
    rows: list[Row] = load_results(Path(config.evaluation(env, choice).out))["results"]
    return rows


def _content(
    config: BackendsConfig, family: Sequence[Member], prices: Sequence[Price]
) -> dict[str, Any]:
    first = str(config.choices[0])
    return {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "policy": config.policy,
        "first": first,
        "evaluations": [
            str(Path(config.evaluation(env, choice).out, FILE))
            for env, choice in product(config.env, config.choices)
        ],
        "comparisons": [{"env": one.env, **one.comparison.to_dict()} for one in family],
        "prices": [{**asdict(price), "sentence": price.sentence(first)} for price in prices],
        **machine_and_versions(),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
