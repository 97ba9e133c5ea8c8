"""All that can be recomputed of the paper: tables by experiment, and checks in its order."""

from functools import cache
from typing import Any

from loopdit.eval.experiments.paper.check import Check
from loopdit.eval.experiments.paper.control import control_checks, control_tables
from loopdit.eval.experiments.paper.counts import count_checks, count_tables
from loopdit.eval.experiments.paper.grid import grid_checks, grid_tables
from loopdit.eval.experiments.paper.grid_diffusion import diffusion_checks
from loopdit.eval.experiments.paper.grid_power import power_checks, seed_checks
from loopdit.eval.experiments.paper.looping import looping_checks, looping_tables


@cache
def paper_checks() -> tuple[Check, ...]:
    """By experiment; what is of the whole paper first."""
    found = [
        *count_checks(),
        *looping_checks(),
        *control_checks(),
        *grid_checks(),
        *power_checks(),
        *seed_checks(),
        *diffusion_checks(),
    ]
    return tuple(sorted(found, key=lambda check: check.experiment or 0))


def paper_tables() -> dict[str, Any]:
    """What `report json=true` prints as `paper`: `paper["exp26"]["anova"]["loops"]["F"]`."""
    return {
        **count_tables(),
        **looping_tables(),
        **control_tables(),
        "exp26": grid_tables(),
        "checks": [check.to_dict() for check in paper_checks()],
    }
