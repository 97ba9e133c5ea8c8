from pathlib import Path

import pytest
import torch
from tests.policy.graft.grafts import moved, tiny_graft, video
from torch import nn

from loopdit.errors import CheckpointError
from loopdit.policy.graft.backbone import COGVIDEOX_2B, TINY, named_transformer
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.delta import load_delta, load_whole, save_delta, save_whole
from loopdit.policy.graft.graft import graft


def _head() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 7))


def test_a_delta_makes_of_a_fresh_graft_the_one_that_was_trained(tmp_path: Path):
    trained, head = moved(tiny_graft(loops=3, freeze="half")), _head()
    save_delta(tmp_path / "delta.safetensors", trained, head)
    fresh, other = tiny_graft(loops=3, freeze="half"), _head()
    load_delta(tmp_path / "delta.safetensors", fresh, other)
    with torch.no_grad():
        assert torch.equal(fresh(*video()).sample, trained(*video()).sample)
        assert torch.equal(other(torch.ones(16)), head(torch.ones(16)))


def test_three_loops_on_a_frozen_2b_are_a_file_of_less_than_two_megabytes(tmp_path: Path):
    with torch.device("meta"):
        grafted = graft(named_transformer(COGVIDEOX_2B), GraftConfig(loops=3))
    transformer = grafted.transformer
    for module in (*transformer.transformer_blocks, transformer):  # memory for what is saved alone
        for name, value in list(module.named_parameters()):
            if value.requires_grad:
                owner = module.get_submodule(name.rpartition(".")[0])
                setattr(owner, name.rpartition(".")[2], nn.Parameter(torch.zeros(value.shape)))
    path = tmp_path / "delta.safetensors"
    save_delta(path, grafted, _head())
    assert 4 * 349_729 < path.stat().st_size < 2_000_000


def test_a_whole_file_needs_nothing_else_and_unloops_to_what_was_grafted(tmp_path: Path):
    trained = moved(tiny_graft(loops=2, freeze="unfrozen", sharpest=2.0))
    save_whole(tmp_path / "whole.safetensors", trained)
    loaded = load_whole(tmp_path / "whole.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(*video()).sample, trained(*video()).sample)
    before = named_transformer(TINY, seed=0).state_dict()
    after = loaded.unloop().state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_delta_of_another_size_or_of_other_loops_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "delta.safetensors"
    save_delta(path, tiny_graft(loops=3))
    with torch.device("meta"):
        large = graft(named_transformer(COGVIDEOX_2B), GraftConfig(loops=3))
    with pytest.raises(CheckpointError, match=r"another transformer: num_layers=2 \(here 30\)"):
        load_delta(path, large)
    with pytest.raises(CheckpointError, match=r"another graft: loops=3 \(here 2\)"):
        load_delta(path, tiny_graft(loops=2))
    with pytest.raises(CheckpointError, match=r"freeze=frozen \(here half\)"):
        load_delta(path, tiny_graft(loops=3, freeze="half"))


def test_a_refused_delta_changes_nothing(tmp_path: Path):
    path = tmp_path / "delta.safetensors"
    save_delta(path, moved(tiny_graft(loops=3)), nn.Linear(3, 3))
    fresh = tiny_graft(loops=3)
    with pytest.raises(CheckpointError, match=r"decoder/0\.weight"):
        load_delta(path, fresh, _head())
    assert all(map(torch.equal, fresh.trained().values(), tiny_graft(loops=3).trained().values()))


def test_what_is_no_graft_is_refused(tmp_path: Path):
    path = tmp_path / "delta.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_delta(path, tiny_graft())
    path.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_delta(path, tiny_graft())
    save_delta(path, tiny_graft())
    with pytest.raises(CheckpointError, match="is a delta, without the transformer"):
        load_whole(path)
