"""The presets: what the paper and its published code say of them, counted."""

import pytest
import torch
from torch import nn

from loopdit.errors import ConfigError
from loopdit.policy.parameter_counts import parameter_counts
from loopdit.policy.presets import PRESETS, preset

# Of the paper and its author's code; see policy/canvas/systems.
PUBLISHED = {
    "v1_3b4l": 1_491_409,
    "v1_12b1l_d68": 1_443_373,
    "v1_6b2l_d95": 1_488_574,
    "v1_12b1l_d128": 5_036_113,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_a_system_of_the_paper_has_the_published_number_of_parameters(name: str, parameters: int):
    assert parameter_counts(preset(name).on_meta())["parameters"] == parameters


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_described_without_memory_and_built_with_it(name: str):
    described = preset(name).on_meta()
    assert {p.device.type for p in described.parameters()} == {"meta"}
    built = preset(name).build()
    assert {p.device.type for p in built.parameters()} == {"cpu"}
    assert parameter_counts(built) == parameter_counts(described)
    assert preset(name).summary


@pytest.mark.parametrize("name", PRESETS)
def test_the_parts_are_the_whole(name: str):
    counts = parameter_counts(preset(name).on_meta())
    for kind in ("parameters", "trainable"):
        assert sum(part[kind] for part in counts["parts"].values()) == counts[kind] > 0


def test_frozen_and_shared_parameters_are_counted_as_such():
    module = nn.Module()
    module.scale = nn.Parameter(torch.ones(3))
    module.first, module.second = nn.Linear(4, 5), nn.Linear(4, 5)
    module.second.weight = module.first.weight
    module.first.weight.requires_grad_(False)
    module.register_buffer("statistics", torch.zeros(100))
    assert parameter_counts(module) == {
        "parameters": 3 + 20 + 5 + 5,
        "trainable": 3 + 5 + 5,
        "parts": {
            "scale": {"parameters": 3, "trainable": 3},
            "first": {"parameters": 25, "trainable": 5},
            "second": {"parameters": 5, "trainable": 5},
        },
    }


def test_an_unknown_preset_is_refused_with_the_nearest_and_all_others():
    with pytest.raises(ConfigError, match=r"preset=v1_3b4 is unknown. Did you mean preset=v1_3b4l"):
        preset("v1_3b4")
    with pytest.raises(ConfigError, match=", ".join(PRESETS)):
        preset("resnet")
