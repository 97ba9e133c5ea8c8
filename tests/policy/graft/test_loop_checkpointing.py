import weakref
from typing import Any

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from tests.policy.graft.grafts import moved, tiny_graft, video
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.graft import Graft, graft


class _LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made inside had at once; `known` ones existed before."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._live = 0
        self._known = {t.untyped_storage().data_ptr() for t in known}
        self._held: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return made

    def _note(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held or storage.data_ptr() in self._known:
            return
        self._live += size
        self.peak = max(self.peak, self._live)
        self._held[key] = weakref.ref(storage, lambda _: self._gone(key, size))

    def _gone(self, key: int, size: int) -> None:
        self._live -= size
        self._held.pop(key, None)


def _eight_blocks() -> Graft:
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        time_embed_dim=16,
        text_embed_dim=8,
        num_layers=8,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=4,
    )
    return graft(transformer, GraftConfig(loops=4, init="paper"))


def _step(grafted: Graft, loops: int, checkpointing: str) -> None:
    latents, text = torch.ones(1, 3, 16, 8, 8), torch.ones(1, 4, 8)
    said = grafted(latents, text, torch.tensor([500]), loops, checkpointing=checkpointing)
    said.sample.square().mean().backward()


def _peak(loops: int, checkpointing: str) -> int:
    grafted = _eight_blocks()
    with _LiveBytes([*grafted.parameters(), *grafted.buffers()]) as bytes_of:
        _step(grafted, loops, checkpointing)
    return bytes_of.peak


def _saved(loops: int, checkpointing: str) -> int:
    """Bytes that the forward pass keeps for the backward one, each memory once."""
    grafted = _eight_blocks()
    own = {p.untyped_storage().data_ptr() for p in grafted.parameters()}
    kept: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # so that no other gets its place
        return tensor

    latents, text = torch.ones(1, 3, 16, 8, 8), torch.ones(1, 4, 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        grafted(latents, text, torch.tensor([500]), loops, checkpointing=checkpointing)
    return sum(kept.values())


@pytest.mark.parametrize("freeze", ["frozen", "unfrozen"])
@pytest.mark.parametrize("checkpointing", ["loop", "nested"])
def test_gradients_are_those_of_keeping_everything(checkpointing: str, freeze: str):
    found: list[dict[str, Tensor]] = []
    for mode in ("none", checkpointing):
        grafted = moved(tiny_graft(loops=3, freeze=freeze, sharpest=2.0, injection=True)).train()
        said = grafted(*video(), checkpointing=mode)
        (said.sample.square().mean() + said.hidden.square().mean()).backward()
        found.append({n: p.grad for n, p in grafted.trained().items() if p.grad is not None})
    assert (
        found[0].keys()
        == found[1].keys()
        == tiny_graft(loops=3, freeze=freeze, injection=True).trained().keys()
    )
    for name, gradient in found[0].items():
        assert float((found[1][name] - gradient).abs().max()) <= 1e-6


def test_what_the_forward_pass_keeps_is_the_same_for_every_depth_when_nested():
    assert len({_saved(loops, "nested") for loops in (1, 2, 3, 4)}) == 1
    assert _saved(4, "loop") < _saved(1, "none")
    assert _saved(4, "none") > 2.5 * _saved(1, "none")


@pytest.mark.slow  # what other tests leave to the collector is in the peak
def test_peak_memory_is_flat_in_the_depth_when_nested_and_grows_without():
    one, four = _peak(1, "nested"), _peak(4, "nested")
    assert four < 1.1 * one
    assert _peak(4, "none") > 2 * _peak(1, "none")
    assert four < _peak(4, "loop") < 0.5 * _peak(4, "none")
