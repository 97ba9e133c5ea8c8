"""Action decoders on features made here: no transformer is needed to know what they do."""

import numpy as np
import pytest
import torch
from torch import Tensor

from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.statistics import VectorStatistics
from loopdit.errors import ConfigError
from loopdit.policy.graft.decoders.action_errors import ErrorSum
from loopdit.policy.graft.decoders.config import DecoderConfig
from loopdit.policy.graft.decoders.decoder import ActionDecoder, make_decoder
from loopdit.policy.graft.features import Features
from loopdit.policy.normalizer import QUANTILE, Normalizer

HIDDEN, CHANNELS, HORIZON, ACTIONS = 48, 16, 4, 7
GRIPPER = torch.arange(ACTIONS) == ACTIONS - 1
OBJECTIVES = ("flow", "ddpm_v", "regression")


def some_features(count: int, seed: int = 0, tokens: int = 10) -> Features:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, tokens, HIDDEN, generator=generator)
    output = torch.randn(count, 3, CHANNELS, 4, 6, generator=generator)
    return Features(hidden, output)


def decoder(horizon: int = HORIZON, loops: int = 1, **options: object) -> ActionDecoder:
    torch.manual_seed(0)
    config = DecoderConfig(**({"width": 64} | options))  # pyright: ignore[reportArgumentType]
    return make_decoder(config, HIDDEN, CHANNELS, horizon, ACTIONS, GRIPPER, loops)


def paper_decoder() -> ActionDecoder:
    torch.manual_seed(0)
    return make_decoder(DecoderConfig(kind="paper"), HIDDEN, CHANNELS, 1, ACTIONS, GRIPPER)


def everywhere(count: int, horizon: int = HORIZON) -> Tensor:
    return torch.ones(count, horizon, dtype=torch.bool)


def trained(model: ActionDecoder, features: Features, chunk: Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        noise, level = model.draw(len(chunk), ACTIONS, generator)
        loss = model.loss(features, chunk, everywhere(*chunk.shape[:2]), noise, level)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_the_papers_head_has_199_parameters_and_reads_the_mean_of_the_output():
    model = paper_decoder()
    assert sum(p.numel() for p in model.parameters()) == 199
    features = some_features(5)
    weights = {name: value.detach() for name, value in model.head.named_parameters()}
    mean = features.sample.flatten(3).mean(-1).mean(1)  # (B, C)
    inside = mean @ weights["layers.0.weight"].T + weights["layers.0.bias"]
    inside = 0.5 * inside * (1 + torch.erf(inside / 2**0.5))
    wanted = inside @ weights["layers.2.weight"].T + weights["layers.2.bias"]
    found = model.sample(features, torch.randn(5, 1, ACTIONS))
    torch.testing.assert_close(found[:, 0], wanted)


def test_the_papers_loss_is_the_squared_error_of_all_seven_numbers():
    model, features = paper_decoder(), some_features(5)
    chunk = torch.randn(5, 1, ACTIONS)
    noise, level = model.draw(5, ACTIONS, torch.Generator().manual_seed(0))
    loss = model.loss(features, chunk, everywhere(5, 1), noise, level)
    wanted = (model.sample(features, noise) - chunk).square().mean()
    torch.testing.assert_close(loss, wanted)


def test_the_papers_head_says_one_action_and_is_refused_a_chunk():
    with pytest.raises(ConfigError, match=r"decoder\.kind=paper says one action.*action_horizon"):
        make_decoder(DecoderConfig(kind="paper"), HIDDEN, CHANNELS, 4, ACTIONS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "paper", "gripper": "regress"}, "decoder.gripper=regress does nothing"),
        ({"kind": "direct", "objective": "ddpm_v"}, "decoder.objective=ddpm_v does nothing"),
        ({"kind": "paper", "dropout": 0.5}, "decoder.dropout=0.5 does nothing"),
        ({"dropout": 1.0}, "decoder.dropout=1.0 must be from 0 up to below 1"),
        ({"kind": "mlp"}, "decoder.kind=mlp is unknown"),
        ({"width": 250}, "decoder.width=250 must be a multiple of 32"),
        ({"objective": "guess"}, "kind=guess is unknown"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], named: str):
    with pytest.raises(ConfigError, match=named):
        DecoderConfig(**options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_rich_head_learns_chunks_that_only_single_tokens_tell(objective: str):
    """The chunk is in one token of ten, at a place of its own; the mean over tokens hides it in
    noise. The gripper is open where the first number is positive."""
    features = some_features(24, seed=2)
    chunk = 0.5 * features.hidden[:, 3, : HORIZON * ACTIONS].reshape(24, HORIZON, ACTIONS)
    chunk[..., -1] = (chunk[..., -1] > 0).float()
    model = decoder(objective=objective)
    trained(model, features, chunk, 120)
    noise = 0.0 * torch.randn(24, HORIZON, ACTIONS)
    found = model.sample(features, noise, steps=10).detach()
    assert set(found[..., -1].unique().tolist()) <= {0.0, 1.0}
    assert (found[..., -1] != chunk[..., -1]).float().mean() < 0.2
    error = (found - chunk)[..., :-1].square().mean()
    constant = (chunk - chunk.mean(0))[..., :-1].square().mean()
    assert error < 0.5 * constant


def test_the_direct_head_learns_what_the_mean_tells():
    features = some_features(24, seed=2)
    chunk = features.hidden.mean(1)[:, : HORIZON * ACTIONS].reshape(24, HORIZON, ACTIONS)
    chunk[..., -1] = (chunk[..., -1] > 0).float()
    model = decoder(kind="direct")
    trained(model, features, chunk, 150)
    found = model.sample(features, torch.randn(24, HORIZON, ACTIONS)).detach()
    assert (found - chunk)[..., :-1].square().mean() < 0.1 * chunk[..., :-1].var()
    assert torch.equal(found[..., -1], chunk[..., -1])


@pytest.mark.parametrize("kind", ["rich", "direct"])
def test_what_is_read_of_the_video_is_dropped_while_learning_alone(kind: str):
    features, noise = some_features(2), torch.zeros(2, HORIZON, ACTIONS)
    careful, plain = decoder(kind=kind, dropout=0.5), decoder(kind=kind)
    assert not torch.equal(careful.sample(features, noise), careful.sample(features, noise))
    assert torch.equal(careful.eval().sample(features, noise), plain.eval().sample(features, noise))


def test_actions_past_the_end_of_an_episode_are_not_learned_from():
    model, features = decoder(), some_features(3)
    chunk = torch.randn(3, HORIZON, ACTIONS)
    noise, level = model.draw(3, ACTIONS, torch.Generator().manual_seed(0))
    valid = everywhere(3)
    valid[:, 2:] = False
    # The noise of a step that does not count still is in the sample: the same in both.
    changed = chunk.clone()
    changed[:, 2:] = noise[:, 2:]
    whole = model.loss(features, chunk, valid, noise, level)
    # At level 0 the sample is the noise alone, so that nothing of the chunk is left in it.
    blank = model.loss(features, chunk, valid, noise, torch.zeros(3))
    assert blank == model.loss(features, changed, valid, noise, torch.zeros(3))
    assert whole != blank


def test_denoising_reads_the_features_once():
    model, features = decoder(), some_features(3)
    noise = torch.randn(3, HORIZON, ACTIONS)
    memory = model.head.read(features)  # pyright: ignore[reportCallIssue]
    assert torch.equal(model.sample_from(memory, noise), model.sample(features, noise))


def test_each_video_token_and_no_order_of_them_counts():
    model, features = decoder(), some_features(3)
    noise = torch.randn(3, HORIZON, ACTIONS)
    shuffled = Features(features.hidden[:, torch.randperm(10)], features.sample)
    one = model.sample(features, noise)
    torch.testing.assert_close(model.sample(shuffled, noise), one)
    for token in range(10):
        changed = features.hidden.clone()
        changed[:, token] += 1.0 * torch.randn(HIDDEN)
        assert not torch.equal(model.sample(Features(changed, features.sample), noise), one)


def test_a_looped_head_has_an_exit_for_each_loop_and_one_loop_is_the_first_of_them():
    model, features = decoder(loops=3), some_features(3)
    with torch.no_grad():
        model.head.loop_embedding.normal_()  # pyright: ignore[reportCallIssue]
    noise = torch.randn(3, HORIZON, ACTIONS)
    chunk = torch.randn(3, HORIZON, ACTIONS)
    losses = model.losses([features], chunk, everywhere(3), noise, torch.full((3,), 0.3))
    assert losses.objective.shape == (3,)
    assert len(set(losses.objective.tolist())) == 3
    memory = model.head.read(features)  # pyright: ignore[reportCallIssue]
    level = torch.zeros(3)
    deep = model.head.exits(memory, noise, level, 3)  # pyright: ignore[reportCallIssue]
    shallow = model.head.exits(memory, noise, level, 1)  # pyright: ignore[reportCallIssue]
    assert torch.equal(deep[0], shallow[0])
    one, all_ = (model.sample(features, noise, loops=k) for k in (1, None))
    assert not torch.equal(one, all_)


def test_features_of_several_depths_are_trained_at_once_and_the_deepest_teaches():
    model = decoder(objective="regression", gripper="regress")
    shallow, deep = some_features(3, seed=1), some_features(3, seed=2)
    chunk = torch.randn(3, HORIZON, ACTIONS)
    noise, level = model.draw(3, ACTIONS, torch.Generator().manual_seed(0))
    both = model.losses([shallow, deep], chunk, everywhere(3), noise, level, distill=0.5)
    said = [model.sample(f, noise) for f in (shallow, deep)]
    taught = (0.5 * chunk + 0.5 * said[1]).detach()
    torch.testing.assert_close(both.objective[0], (said[0] - taught).square().mean())
    torch.testing.assert_close(both.objective[1], (said[1] - chunk).square().mean())


def bridge_normalizer() -> Normalizer:
    spec = PolicySpec(
        observations=(
            TensorSpec("images.front", (8, 8, 3), "uint8"),
            TensorSpec(PROPRIO, (7,), "float32"),
        ),
        action=TensorSpec("action", (ACTIONS,), "float32"),
        action_frame="of the arm",
        control_period_s=0.2,
    )
    random = np.random.default_rng(0)
    values = random.normal(size=(500, ACTIONS)) * 0.02 + 0.01
    values[:, -1] = values[:, -1] > 0.0
    rows = [values.mean(0), values.std(0), values.min(0), values.max(0)]
    rows += [np.quantile(values, q, axis=0) for q in (0.01, 0.99)]
    found = VectorStatistics(*(tuple(row.tolist()) for row in rows))
    normalizer = Normalizer(spec)
    normalizer.fit(
        {"action": found, PROPRIO: found}, {"action": QUANTILE}, {"action": [ACTIONS - 1]}
    )
    return normalizer


def test_errors_are_raw_and_normalised_and_beside_the_constants():
    normalizer = bridge_normalizer()
    random = np.random.default_rng(1)
    actions = torch.tensor(random.normal(size=(6, 2, ACTIONS)) * 0.02, dtype=torch.float32)
    actions[..., -1] = (actions[..., -1] > 0).float()
    constant = [0.01] * 6 + [0.6]
    valid = torch.ones(6, 2, dtype=torch.bool)
    valid[-1, 1] = False
    predicted = normalizer.chunk(actions).clone()
    predicted[..., 0] += 0.5
    predicted[0, 0, -1] = 1 - predicted[0, 0, -1]
    # What does not count may be anything.
    predicted[-1, 1] = torch.nan
    errors = ErrorSum(normalizer, constant, GRIPPER)
    errors.add(predicted[:4], actions[:4], valid[:4])
    errors.add(predicted[4:], actions[4:], valid[4:])
    found, beside = errors.predicted(), errors.constant()
    assert errors.count == 11
    assert found.gripper_wrong == pytest.approx(1 / 11)
    assert found.arm_normalised == pytest.approx(0.25 / 6, rel=1e-4)
    assert found.normalised == pytest.approx((0.25 + 1 / 11) / 7, rel=1e-4)
    kept = actions[valid].double()
    low, high = (normalizer.action_mean[0] + s * normalizer.action_spread[0] for s in (-1, 1))
    moved = (kept[:, 0].clamp(low, high) + 0.5 * normalizer.action_spread[0] - kept[:, 0]) ** 2
    rest = [(kept[:, i] - kept[:, i].clamp(*_ends(normalizer, i))) ** 2 for i in range(1, 6)]
    assert found.arm_raw == pytest.approx(float((moved + sum(rest)).mean() / 6), rel=1e-3)
    distance = (kept - torch.tensor(constant, dtype=torch.float64)).square()
    assert beside.raw == pytest.approx(float(distance.mean()), rel=1e-5)
    assert beside.arm_raw == pytest.approx(float(distance[:, :6].mean()), rel=1e-5)
    assert beside.gripper_wrong == pytest.approx(float((kept[:, -1] < 0.5).double().mean()))


def test_errors_of_actions_without_a_gripper_are_plain_numbers():
    normalizer = bridge_normalizer()
    errors = ErrorSum(normalizer, [0.0] * ACTIONS, None)
    actions = torch.zeros(2, 1, ACTIONS)
    errors.add(normalizer.chunk(actions), actions, everywhere(2, 1))
    assert set(errors.predicted().to_dict("a_")) == {
        *("a_raw", "a_normalised", "a_arm_raw", "a_arm_normalised"),
    }
    assert errors.predicted().arm_raw == errors.predicted().raw == pytest.approx(0, abs=1e-12)


def _ends(normalizer: Normalizer, index: int) -> tuple[float, float]:
    mean, spread = normalizer.action_mean[index], normalizer.action_spread[index]
    return float(mean - spread), float(mean + spread)
