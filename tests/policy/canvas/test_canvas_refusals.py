from dataclasses import replace

import pytest
import torch
from tests.policy.canvas.moving_squares import moving_squares

from loopdit.errors import ConfigError, SpecMismatch
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.loops.config import LoopConfig

SMALL = CanvasModelConfig(width=32, heads=2, blocks=2, loops=LoopConfig(loops=2))


def test_a_canvas_that_does_not_fit_is_named():
    model = CanvasModel(SMALL)
    canvas = moving_squares(2, seed=1)
    level = torch.zeros(2)
    with pytest.raises(SpecMismatch, match="lacks region 'proprio'"):
        model({name: canvas[name] for name in canvas if name != "proprio"}, level)
    with pytest.raises(SpecMismatch, match=r"'proprio' .* \(2, 2, 7\); .* \(B, 2, 11\)"):
        model({**canvas, "proprio": torch.zeros(2, 2, 7)}, level)


def test_kinds_that_cannot_be_embedded_or_predicted_are_refused():
    words = Region("words", "text", range(1), range(1), range(2))
    with pytest.raises(ConfigError, match=r"'words' is of kind 'text', which cannot be predicted"):
        CanvasModel(SMALL, CanvasLayout((1, 1, 2), (words,), ("words",)))
    sound = Region("sound", "audio", range(1), range(1), range(2))
    with pytest.raises(ConfigError, match=r"'sound' is of kind 'audio', which cannot be embedded"):
        CanvasModel(SMALL, CanvasLayout((1, 1, 2), (sound,)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "canvas.heads=3 does not divide canvas.width=32"),
        ({"blocks": 0}, "canvas.blocks=0 must be at least 1"),
        ({"topology": "ring"}, "canvas.topology=ring is unknown"),
        ({"execution": "fused"}, "canvas.execution=fused is unknown. Use mask or dispatch"),
        ({"objective": "regression"}, "canvas.objective=regression is unknown"),
        (
            {"execution": "dispatch", "loops": LoopConfig(halting="token")},
            "Use execution=mask",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(change: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)  # pyright: ignore[reportArgumentType] - a bad value is the point
