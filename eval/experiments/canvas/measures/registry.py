"""The measures by the names that an experiment asks for them by."""

from collections.abc import Callable, Mapping

from loopdit.eval.experiments.canvas.measures.inside import cross_modal, fixed_point
from loopdit.eval.experiments.canvas.measures.loops_used import depths, exits, loop_gates, stopping
from loopdit.eval.experiments.canvas.measures.predictions import (
    accuracy,
    f1,
    guess,
    levels,
    splits,
)
from loopdit.eval.experiments.canvas.measures.trained import Metrics, Trained

MEASURES: Mapping[str, Callable[[Trained], Metrics]] = {
    "guess": guess,
    "accuracy": accuracy,
    "f1": f1,
    "splits": splits,
    "levels": levels,
    "depths": depths,
    "stopping": stopping,
    "loop_gates": loop_gates,
    "exits": exits,
    "fixed_point": fixed_point,
    "cross_modal": cross_modal,
}
