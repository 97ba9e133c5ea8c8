from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.policy.graft.grafts import tiny_graft, video
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.graft.backbone import COGVIDEOX_2B, TINY, named_transformer
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.memory import Work, require_fits, training_memory


def _config(name: str) -> dict[str, Any]:
    with torch.device("meta"):
        transformer = named_transformer(name)
    return {k: v for k, v in dict(transformer.config).items() if not k.startswith("_")}


def _work(**changes: Any) -> Work:
    """Three loops of a frozen CogVideoX-2B on clips of 9 frames."""
    work = Work(
        transformer=_config(COGVIDEOX_2B),
        graft=GraftConfig(loops=4),
        frozen=1_693_780_032,
        trained=464_959,
        latents=(3, 16, 60, 90),
        rows=1,
        passes=[4],
        precision="bf16",
    )
    return replace(work, **changes)


def test_the_estimate_is_what_a_forward_pass_keeps():
    grafted = tiny_graft(loops=3, freeze="half").train()
    own = {p.untyped_storage().data_ptr() for p in grafted.parameters()}
    kept: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        grafted(*video(2))
    work = Work(_config(TINY), GraftConfig(loops=3, freeze="half"), 0, 0, (3, 16, 8, 12), 2, [3])
    assert training_memory(work).activations == pytest.approx(sum(kept.values()), rel=0.05)


def test_activations_grow_with_the_loops_unless_they_are_computed_again():
    def activations(checkpointing: str, loops: int) -> int:
        return training_memory(_work(checkpointing=checkpointing, passes=[loops])).activations

    assert activations("none", 4) > 3.5 * activations("none", 1)
    assert activations("nested", 4) < 1.15 * activations("nested", 1)
    assert activations("nested", 4) < activations("loop", 4) < activations("none", 4) / 5


def test_the_papers_training_fits_its_forty_gigabytes():
    assert training_memory(_work(checkpointing="loop")).total < 40e9


def test_what_does_not_fit_is_refused_with_the_settings_that_would():
    with pytest.raises(ConfigError, match=r"needs .* GiB, and .* It would fit with checkpoint="):
        require_fits(_work(rows=4), batch=4, free=24 << 30)
    with pytest.raises(ConfigError, match="precision=bf16"):
        require_fits(_work(precision="fp32", checkpointing="loop"), batch=1, free=10 << 30)
    with pytest.raises(ConfigError, match="No setting of checkpoint, accumulate or precision"):
        require_fits(_work(), batch=1, free=1 << 30)


def test_a_remedy_that_is_named_fits():
    work = _work(rows=64, checkpointing="nested")
    with pytest.raises(ConfigError, match="accumulate=64"):
        require_fits(work, batch=64, free=20 << 30)
    assert training_memory(replace(work, rows=1)).total <= 20 << 30


def test_weights_that_are_spread_leave_a_share_of_themselves_and_of_their_optimizer():
    every = GraftConfig(loops=3, freeze="all")
    work = _work(graft=every, frozen=0, trained=1_694_000_000, passes=[3], checkpointing="nested")
    one, four = training_memory(work), training_memory(replace(work, shares=4))
    assert four.optimizer == one.optimizer // 4
    assert four.activations == one.activations
    gathered = 4 * (2 * 56_081_536 + 11_350_000)  # two blocks, and what is in none
    assert four.weights - one.weights // 4 == pytest.approx(gathered, rel=0.02)


def test_several_gpus_are_told_to_spread_what_one_cannot_hold():
    every = GraftConfig(loops=3, freeze="all")
    work = _work(graft=every, frozen=0, trained=1_694_000_000, passes=[3], checkpointing="nested")
    with pytest.raises(ConfigError, match="It would fit with shard=true"):
        require_fits(work, batch=1, free=24 << 30, processes=4)
    with pytest.raises(ConfigError, match="or more GPUs with shard=true"):
        require_fits(work, batch=1, free=24 << 30)
