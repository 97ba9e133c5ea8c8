"""The tasks for the canvas model, by name."""

from collections.abc import Mapping
from difflib import get_close_matches

from loopdit.errors import ConfigError
from loopdit.eval.experiments.tasks.canvas_task import CanvasTask
from loopdit.eval.experiments.tasks.collisions import CollisionsTask
from loopdit.eval.experiments.tasks.contacts import ContactsTask
from loopdit.eval.experiments.tasks.context import MOST_PAIRS, ContextTask
from loopdit.eval.experiments.tasks.hops import HopsTask
from loopdit.eval.experiments.tasks.shapes import ShapesTask

TASKS: Mapping[str, CanvasTask] = {
    "moving_shapes": ShapesTask(bounce=False),
    "bouncing_shapes": ShapesTask(bounce=True),
    "hops": HopsTask(),
    "contacts": ContactsTask(),
    "collisions": CollisionsTask(),
    **{f"context_{pairs}": ContextTask(pairs) for pairs in range(MOST_PAIRS + 1)},
}


def task_named(name: str) -> CanvasTask:
    """Raises ConfigError with the nearest name where there is none."""
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"task={name} is unknown.{hint} There are: {', '.join(TASKS)}.")
    return TASKS[name]
