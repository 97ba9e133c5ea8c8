"""policy-eval power: how many episodes it takes to show that one policy is better than another.

Prints, for two success rates, what three tests need: McNemar's exact test on seeds that both
conditions share, the e-process on the same seeds (`episodes=auto`, it may stop early), and a z
test of two rates on different seeds, for comparison. Runs no environment.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from loopdit.command import Command, option, run_command
from loopdit.errors import ConfigError
from loopdit.eval.statistics.planning import (
    Found,
    Pairs,
    correlation_limits,
    episodes_needed,
    expected_episodes,
    found_by_e_process,
    found_by_mcnemar,
    pairs_of,
    unpaired_episodes,
)

COMMAND = Command(
    name="policy-eval power",
    folder="eval_power",
    summary="how many episodes show that success rate b differs from success rate a.",
    examples=(
        "policy-eval power a=0.7 b=0.8",
        "policy-eval power a=0.85 b=0.9 rho=0.7 power=0.9 comparisons=3",
    ),
)
_MOST_SEEDS = 20_000  # beyond that the difference is too small for any closed-loop evaluation


@dataclass(frozen=True)
class PowerConfig:
    """The two rates, how alike their outcomes are, and how sure to be."""

    a: float = option(0.7, "success rate of one condition, from 0 to 1")
    b: float = option(0.8, "success rate of the other")
    power: float = option(0.8, "chance with which the difference shall be found")
    rho: float = option(0.0, "correlation of both outcomes on a seed: some are hard for both")
    alpha: float = option(0.05, "chance of finding a difference where there is none")
    comparisons: int = option(1, "how many comparisons share alpha (Bonferroni)")

    def __post_init__(self) -> None:
        for name, value in {"a": self.a, "b": self.b}.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}={value} is not a rate: it must be from 0 to 1.")
        for name, value in {"power": self.power, "alpha": self.alpha}.items():
            if not 0 < value < 1:
                raise ConfigError(f"{name}={value} must be between 0 and 1.")
        if self.a == self.b:
            raise ConfigError(f"a={self.a} and b={self.b} are equal: there is nothing to find.")
        if self.comparisons < 1:
            raise ConfigError(f"comparisons={self.comparisons} must be at least 1.")
        low, high = correlation_limits(self.a, self.b)
        if not low <= self.rho <= high:
            raise ConfigError(
                f"rho={self.rho} cannot be: outcomes with rates {self.a} and {self.b} have a "
                f"correlation from {low:.2f} to {high:.2f}."
            )


@dataclass(frozen=True)
class Plan:
    """Seeds that each test needs; None where more than 20,000 would not do.

    `sequential_limit` is the number of seeds to allow the e-process, `sequential_expected` what it
    then takes on average. `unpaired` counts the seeds of each condition.
    """

    discordant: float
    paired: int | None
    sequential_limit: int | None
    sequential_expected: float | None
    unpaired: int


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `policy-eval power`; `argv` without the command's name."""
    original = sys.argv[:]
    if argv is not None:
        sys.argv[:] = [COMMAND.name, *argv]
    try:
        run_command(COMMAND, PowerConfig, run)
    finally:
        sys.argv[:] = original


def run(config: PowerConfig) -> None:
    """Print the table."""
    made = plan(config)
    console = Console()
    console.print(_table(made, config))
    console.print(
        f"One seed is one episode of each condition; {made.discordant:.0%} of them tell the two "
        f"apart (rho={config.rho:g}).",
        soft_wrap=True,
    )
    if made.paired and made.sequential_limit is None:
        console.print(
            f"The e-process does not find so small a difference in {_MOST_SEEDS} seeds: fix the "
            f"number of episodes beforehand and use McNemar's test.",
            soft_wrap=True,
        )


def plan(config: PowerConfig) -> Plan:
    """What each of the tests needs."""
    alpha = config.alpha / config.comparisons
    rates = sorted((config.a, config.b))
    pairs = pairs_of(rates[0], rates[1], config.rho)
    paired, _ = _needed(found_by_mcnemar, pairs, alpha, config.power)
    limit, found = _needed(found_by_e_process, pairs, alpha, config.power)
    return Plan(
        discordant=pairs.discordant,
        paired=paired,
        sequential_limit=limit,
        sequential_expected=None if limit is None else expected_episodes(pairs, found, limit),
        unpaired=unpaired_episodes(rates[0], rates[1], config.power, alpha),
    )


def _needed(
    found_by: Found, pairs: Pairs, alpha: float, power: float
) -> tuple[int | None, np.ndarray]:
    """Seeds that a test needs, None above _MOST_SEEDS, with its chances by discordant pairs."""
    for most in (_MOST_SEEDS // 10, _MOST_SEEDS):  # a tenth is usually enough, and at once
        found = found_by(most, pairs.share_b, alpha)
        needed = episodes_needed(pairs, found, power)
        if needed is not None:
            return needed, found
    return None, np.zeros(0)


def _table(made: Plan, config: PowerConfig) -> Table:
    shared = f", {config.comparisons} comparisons" if config.comparisons > 1 else ""
    table = Table(
        title=(
            f"{100 * config.a:g} % against {100 * config.b:g} %, found with chance "
            f"{100 * config.power:g} % (alpha {config.alpha:g}{shared})"
        ),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("test")
    for name in ("seeds", "on average", "episodes in all"):
        table.add_column(name, justify="right")
    too_many = (f"over {_MOST_SEEDS}", "", "")
    paired, limit, expected = made.paired, made.sequential_limit, made.sequential_expected
    table.add_row(
        "same seeds, McNemar exact",
        *((f"{paired}", f"{paired}", f"{2 * paired}") if paired else too_many),
    )
    table.add_row(
        "same seeds, e-process",
        *(
            (f"at most {limit}", f"{expected:.0f}", f"{2 * expected:.0f}")
            if limit and expected
            else too_many
        ),
    )
    each = f"{made.unpaired} each"
    table.add_row("different seeds, z test", each, each, f"{2 * made.unpaired}")
    return table
