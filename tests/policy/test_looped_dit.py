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


@pytest.mark.parametrize("inside", [8, 5])
def test_every_exit_is_compared_with_the_demonstration_inside_its_episode(
    model: LoopedDiT, inside: int
):
    """Written out: the same noise, the prediction served at that depth, a mean over what counts."""
    frames, proprio, chunk, _ = inputs()
    valid = torch.arange(8).expand(3, 8) < inside
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(chunk.shape, generator=generator)
    times = torch.rand(3, generator=generator)
    losses = model.loss(frames, proprio, chunk, valid, noise, times, distill=0.0).objective
    sample = noise + times[:, None, None] * (chunk - noise)
    for loops in (1, 2, 3):
        predicted = model.predict(sample, times, *model.encode(frames, proprio, loops))
        expected = (predicted - chunk)[:, :inside].square().mean()
        torch.testing.assert_close(losses[loops - 1], expected)


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


def test_errors_to_the_demonstrations_do_not_depend_on_the_distillation(model: LoopedDiT):
    frames, proprio, chunk, times = inputs()
    valid = torch.ones(3, 8, dtype=torch.bool)
    noise = torch.randn(chunk.shape, generator=torch.Generator().manual_seed(0))
    plain, mixed = (
        model.loss(frames, proprio, chunk, valid, noise, times, distill) for distill in (0.0, 0.5)
    )
    torch.testing.assert_close(plain.error, mixed.error)
    torch.testing.assert_close(plain.error, plain.objective)
    assert not torch.allclose(mixed.objective[0], mixed.error[0])
    torch.testing.assert_close(mixed.objective[-1], mixed.error[-1])


def test_distillation_moves_no_gradient_into_the_teacher():
    torch.manual_seed(0)
    model = LoopedDiT(CONFIG, cameras=2, proprio_dim=5, action_dim=7)
    frames, proprio, chunk, times = inputs()
    valid = torch.ones(3, 8, dtype=torch.bool)
    noise = torch.randn(chunk.shape, generator=torch.Generator().manual_seed(0))
    loss = model.loss(frames, proprio, chunk, valid, noise, times, 0.5).objective
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
