from dataclasses import replace
from typing import Any

import pytest
import torch

from loopdit.errors import ConfigError
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.looped_dit import Inputs, LoopedDiT
from loopdit.policy.looped_dit_config import LoopedDiTConfig

CONFIG = LoopedDiTConfig(width=64, blocks=2, max_loops=3, action_horizon=8, actions_per_token=2)


@pytest.fixture
def model() -> LoopedDiT:
    torch.manual_seed(0)
    model = LoopedDiT(CONFIG, cameras=[32, 32], proprio_dim=5, action_dim=7).eval()
    # Fresh modulations are zero, which would hide the loop, the time and the order of the blocks.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model.requires_grad_(False)


def given(batch: int = 3) -> tuple[Inputs, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = [torch.rand(batch, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2)]
    proprio = torch.randn(batch, 5, generator=generator)
    sample = torch.randn(batch, 8, 7, generator=generator)
    times = torch.rand(batch, generator=generator)
    return Inputs(frames, proprio), sample, times


def test_a_shallow_pass_is_the_beginning_of_a_deep_one(model: LoopedDiT):
    observed, sample, times = given()
    deep = model.encode(observed, loops=3)
    exits = list(model.exits(sample, times, deep))
    for loops in (1, 2, 3):
        shallow = model.encode(observed, loops)
        torch.testing.assert_close(shallow.keys, deep.keys[: loops * CONFIG.blocks])
        torch.testing.assert_close(shallow.values, deep.values[: loops * CONFIG.blocks])
        torch.testing.assert_close(model.predict(sample, times, shallow), exits[loops - 1])


def test_cached_keys_and_values_equal_one_attention_over_all_tokens(model: LoopedDiT):
    """One way: observation tokens see observation tokens, action tokens see all."""
    observed, sample, times = given()
    cached = model.predict(sample, times, model.encode(observed, loops=3))

    observation = torch.cat(
        [camera(frame) for camera, frame in zip(model.cameras, observed.frames, strict=True)]
        + [model.proprio(observed.proprio)[:, None]],
        dim=1,
    )
    observation = observation + model.observation_position
    actions = model.action_in(sample.reshape(3, 4, 14)) + model.action_position
    count = observation.shape[1]
    tokens = torch.cat([observation, actions], dim=1)
    clean = model.condition(torch.ones(1)).expand(3, count, -1)
    noisy = model.condition(times).expand(-1, 4, -1)
    condition = torch.cat([clean, noisy], dim=1)
    allowed = torch.ones(count + 4, count + 4, dtype=torch.bool)
    allowed[:count, count:] = False
    for loop in range(3):
        tokens = tokens + model.loop_embedding[loop]
        for block in model.blocks:
            assert isinstance(block, AdaLNBlock)
            tokens = masked_block(block, tokens, condition, allowed)
    whole = model.action_out(model.out_norm(tokens[:, count:])).reshape(3, 8, 7)

    torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-5)


def masked_block(
    block: AdaLNBlock, tokens: torch.Tensor, condition: torch.Tensor, allowed: torch.Tensor
) -> torch.Tensor:
    """The block written out: explicit softmax over one masked attention."""
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = block.modulation(condition).chunk(6, -1)
    normed = block.attention_norm(tokens) * (1 + scale_a) + shift_a
    queries, keys, values = block.queries_keys_values(normed).chunk(3, -1)
    heads: list[torch.Tensor] = []
    for h in range(block.heads):
        part = slice(32 * h, 32 * (h + 1))
        scores = queries[..., part] @ keys[..., part].transpose(1, 2) / 32**0.5
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        heads.append(weights @ values[..., part])
    tokens = tokens + gate_a * block.attention_out(torch.cat(heads, dim=-1))
    normed = block.feedforward_norm(tokens) * (1 + scale_f) + shift_f
    gate, value = block.feedforward_in(normed).chunk(2, -1)
    hidden = gate * torch.sigmoid(gate) * value
    return tokens + gate_f * block.feedforward_out(hidden)


def test_loops_share_their_weights():
    def size(max_loops: int) -> int:
        config = LoopedDiTConfig(width=64, max_loops=max_loops)
        return sum(p.numel() for p in LoopedDiT(config, [32, 32], 5, 7).parameters())

    assert size(4) - size(1) == 3 * 64  # three loop embeddings and nothing else


def test_an_action_expert_is_a_stack_of_the_action_tokens_alone(model: LoopedDiT):
    observed, sample, times = given()
    own = LoopedDiT(replace(CONFIG, action_expert=True), [32, 32], 5, 7).eval()
    weights = model.state_dict()
    copies = {f"action_{n}": w for n, w in weights.items() if n.startswith("blocks.")}
    own.load_state_dict(weights | copies)
    shared = model.predict(sample, times, model.encode(observed, loops=3))
    torch.testing.assert_close(
        own.predict(sample, times, own.encode(observed, loops=3)), shared, rtol=0, atol=0
    )

    before = own.encode(observed, loops=3)
    with torch.no_grad():
        for parameter in own.action_blocks.parameters():
            parameter.add_(0.01)
    torch.testing.assert_close(own.encode(observed, loops=3), before, rtol=0, atol=0)
    assert not torch.equal(own.predict(sample, times, before), shared)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 100}, "Use 96 or 128"),
        ({"max_loops": 0}, "policy.max_loops=0"),
        ({"action_horizon": 10, "actions_per_token": 4}, "does not divide"),
    ],
)
def test_sizes_that_cannot_work_are_refused_with_the_remedy(settings: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        LoopedDiTConfig(**settings)


@pytest.mark.parametrize("topology", ["one_way", "dense"])
def test_truncation_changes_no_value_trains_the_last_loops_alone_and_keeps_less(topology: str):
    torch.manual_seed(0)
    model = LoopedDiT(replace(CONFIG, topology=topology), [32, 32], 5, 7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    observed, sample, times = given()
    outputs: list[torch.Tensor] = []
    kept: list[int] = []
    for truncate in (0, 1):
        model.zero_grad()
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            context = model.encode(observed, 3, truncate)
            *_, output = model.exits(sample, times, context, truncate)
        output.square().sum().backward()
        outputs.append(output)
        kept.append(sum(sizes))
    torch.testing.assert_close(outputs[0], outputs[1])
    assert kept[1] < 0.6 * kept[0]
    assert model.loop_embedding.grad is not None
    assert model.loop_embedding.grad.any(1).tolist() == [False, False, True]
    for entrance in (model.proprio.weight, model.action_in.weight):  # through the cut
        assert entrance.grad is not None
        assert entrance.grad.any()
