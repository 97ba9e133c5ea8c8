"""What every task promises: canvases of its layout, from its seed alone, that its model takes."""

import pytest
import torch

from loopdit.errors import ConfigError
from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN
from loopdit.eval.experiments.tasks.registry import TASKS, task_named
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig


@pytest.mark.parametrize("name", TASKS)
def test_a_canvas_follows_from_task_seed_and_split_alone(name: str):
    task = task_named(name)
    for split in task.splits:
        first, again = task.canvases(16, 1, split), task.canvases(16, 1, split)
        other = task.canvases(16, 2, split)
        assert all(torch.equal(first[region], again[region]) for region in first)
        assert not torch.equal(first[task.main], other[task.main])


@pytest.mark.parametrize("name", TASKS)
def test_training_and_held_out_canvases_of_a_seed_differ(name: str):
    task = task_named(name)
    a, b = task.canvases(16, 1, TRAIN), task.canvases(16, 1, HELD_OUT)
    assert not torch.equal(a[task.main], b[task.main])


@pytest.mark.parametrize("name", TASKS)
def test_a_model_of_the_tasks_layout_takes_every_split(name: str):
    task = task_named(name)
    config = CanvasModelConfig(width=16, heads=2, blocks=1, modalities=task.modalities)
    model = CanvasModel(config, task.layout)
    for split in task.splits:
        canvas = task.canvases(3, 0, split)
        assert set(canvas) == set(task.layout.names)
        losses = model.loss(canvas, model.draw(3, torch.Generator().manual_seed(0)))
        assert bool(losses.error[task.main].isfinite())


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean contacts"):
        task_named("contact")
