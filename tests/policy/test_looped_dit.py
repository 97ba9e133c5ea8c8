import pytest
import torch

from loopdit.errors import ConfigError
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.looped_dit import LoopedDiT, LoopedDiTConfig

CONFIG = LoopedDiTConfig(width=64, blocks=2, max_loops=3, action_horizon=8, actions_per_token=2)


@pytest.fixture
def model() -> LoopedDiT:
    torch.manual_seed(0)
    model = LoopedDiT(CONFIG, cameras=2, proprio_dim=5, action_dim=7).eval()
    # Fresh modulations are zero, which would hide the loop, the time and the order of the blocks.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model.requires_grad_(False)


def inputs(batch: int = 3) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = [torch.rand(batch, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2)]
    proprio = torch.randn(batch, 5, generator=generator)
    sample = torch.randn(batch, 8, 7, generator=generator)
    times = torch.rand(batch, generator=generator)
    return frames, proprio, sample, times


def test_a_shallow_pass_is_the_beginning_of_a_deep_one(model: LoopedDiT):
    frames, proprio, _, _ = inputs()
    deep_keys, deep_values = model.encode(frames, proprio, loops=3)
    for loops in (1, 2):
        keys, values = model.encode(frames, proprio, loops)
        torch.testing.assert_close(keys, deep_keys[: loops * CONFIG.blocks])
        torch.testing.assert_close(values, deep_values[: loops * CONFIG.blocks])


def test_every_exit_of_the_loss_is_the_prediction_served_at_that_depth(model: LoopedDiT):
    frames, proprio, chunk, _ = inputs()
    valid = torch.ones(3, 8, dtype=torch.bool)
    losses = model.loss(
        frames, proprio, chunk, valid, torch.Generator().manual_seed(4), distill=0.0
    )
    # The same draws by hand: noise first, then the times' uniforms.
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(chunk.shape, generator=generator)
    times = 1 - (1 - torch.rand(3, generator=generator)) ** (1 / 1.5)
    sample = noise + times[:, None, None] * (chunk - noise)
    for loops in (1, 2, 3):
        predicted = model.predict(sample, times, *model.encode(frames, proprio, loops))
        torch.testing.assert_close(losses[loops - 1], (predicted - chunk).square().mean())


def test_cached_keys_and_values_equal_one_attention_over_all_tokens(model: LoopedDiT):
    """One way: observation tokens see observation tokens, action tokens see all."""
    frames, proprio, sample, times = inputs()
    cached = model.predict(sample, times, *model.encode(frames, proprio, loops=3))

    observation = torch.cat(
        [camera(frame) for camera, frame in zip(model.cameras, frames, strict=True)]
        + [model.proprio(proprio)[:, None]],
        dim=1,
    )
    observation = observation + model.observation_position
    actions = model.action_in(sample.reshape(3, 4, 14)) + model.action_position
    count = observation.shape[1]
    tokens = torch.cat([observation, actions], dim=1)
    clean = model._condition(torch.ones(1)).expand(3, count, -1)  # pyright: ignore[reportPrivateUsage] - the slow version needs the same clock
    noisy = model._condition(times).expand(-1, 4, -1)  # pyright: ignore[reportPrivateUsage]
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
        return sum(p.numel() for p in LoopedDiT(config, 2, 5, 7).parameters())

    assert size(4) - size(1) == 3 * 64  # three loop embeddings and nothing else


def test_actions_past_the_episode_do_not_count(model: LoopedDiT):
    frames, proprio, chunk, _ = inputs()
    valid = torch.ones(3, 8, dtype=torch.bool)
    valid[:, 5:] = False

    def losses(chunk: torch.Tensor) -> torch.Tensor:
        # Noise only: a sample at time 0 holds nothing of the chunk beyond what the loss compares.
        keys_values = model.encode(frames, proprio, 3)
        predicted = model.predict(torch.zeros_like(chunk), torch.zeros(3), *keys_values)
        error = (predicted - chunk).square() * valid[..., None]
        return error.sum() / (valid.sum() * 7)

    other = chunk.clone()
    other[:, 5:] += 100.0
    torch.testing.assert_close(losses(chunk), losses(other))
    kept = model.loss(frames, proprio, chunk, valid, torch.Generator().manual_seed(0), 0.0)
    every = model.loss(
        frames, proprio, chunk, torch.ones_like(valid), torch.Generator().manual_seed(0), 0.0
    )
    assert not torch.allclose(kept, every)


def test_distillation_moves_no_gradient_into_the_teacher():
    torch.manual_seed(0)
    model = LoopedDiT(CONFIG, cameras=2, proprio_dim=5, action_dim=7)
    frames, proprio, chunk, _ = inputs()
    valid = torch.ones(3, 8, dtype=torch.bool)
    loss = model.loss(frames, proprio, chunk, valid, torch.Generator().manual_seed(0), 0.5)
    loss[0].backward()
    gradient = model.loop_embedding.grad
    assert gradient is not None
    assert gradient[0].abs().sum() > 0
    assert gradient[1:].abs().sum() == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 100}, "Use 96 or 128"),
        ({"max_loops": 0}, "policy.max_loops=0"),
        ({"action_horizon": 10, "actions_per_token": 4}, "does not divide"),
    ],
)
def test_sizes_that_cannot_work_are_refused_with_the_remedy(settings: dict[str, int], said: str):
    with pytest.raises(ConfigError, match=said):
        LoopedDiTConfig(**settings)
