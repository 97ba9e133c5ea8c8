import pytest
import torch
from torch import nn

from loopdit.policy.graft.backbone import COGVIDEOX_2B, named_transformer
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.graft import graft

# Of CogVideoX-2B, by what it is made of.
_TIME_EMBEDDING, _NORM_FINAL, _NORM_OUT, _PROJ_OUT = 1_246_208, 3_840, 1_973_760, 122_944
_PATCH_EMBED = 7_991_040
_HEAD = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 7))
_LEVELS = {
    "frozen": _NORM_FINAL,
    "half": _NORM_FINAL + _TIME_EMBEDDING + _NORM_OUT + _PROJ_OUT,
    "unfrozen": _NORM_FINAL + _TIME_EMBEDDING + _NORM_OUT + _PROJ_OUT + _PATCH_EMBED,
}


@pytest.fixture(scope="module")
def transformer():
    with torch.device("meta"):
        return named_transformer(COGVIDEOX_2B)


def test_the_2b_shape_has_the_parameters_of_the_real_one(transformer: nn.Module):
    assert sum(p.numel() for p in transformer.parameters()) == 1_693_783_872


@pytest.mark.parametrize("loops", [1, 2, 3, 4])
@pytest.mark.parametrize("freeze", list(_LEVELS))
def test_each_cell_of_the_grid_trains_exactly_what_the_paper_counts(
    transformer: nn.Module, freeze: str, loops: int
):
    grafted = graft(transformer, GraftConfig(loops=loops, freeze=freeze))  # pyright: ignore[reportArgumentType]
    head = sum(p.numel() for p in _HEAD.parameters())
    found = sum(p.numel() for p in grafted.parameters() if p.requires_grad) + head
    assert sum(p.numel() for p in grafted.trained().values()) + head == found
    grafted.unloop()
    assert head == 199
    assert found == 30 * (2 * 1920 + 1) * loops + _LEVELS[freeze] + head
    if freeze == "frozen":
        assert found == {1: 119_269, 2: 234_499, 3: 349_729, 4: 464_959}[loops]


def test_nothing_is_frozen_for_plain_fine_tuning(transformer: nn.Module):
    plain = GraftConfig(loops=1, looped="nothing", freeze="all")
    grafted = graft(transformer, plain)  # pyright: ignore[reportArgumentType]
    found = sum(p.numel() for p in grafted.parameters() if p.requires_grad)
    grafted.unloop()
    assert found == 1_693_783_872
