from dataclasses import replace

import pytest
import torch
from tests.policy.canvas.moving_squares import moving_squares
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.canvas.systems import CANVAS_SYSTEMS
from loopdit.policy.canvas.topology import TOPOLOGIES, CanvasTopology, Connection
from loopdit.policy.loops.config import LoopConfig

SMALL = CanvasModelConfig(width=32, heads=2, blocks=2, loops=LoopConfig(loops=2))


def random_model(
    config: CanvasModelConfig = SMALL,
    layout: CanvasLayout | None = None,
    topology: CanvasTopology | None = None,
) -> CanvasModel:
    """With weights that hide nothing: fresh modulations are zero."""
    torch.manual_seed(0)
    model = CanvasModel(config, layout, topology).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def has_effect(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (CANVAS_SYSTEMS["v1_3b4l"], 1_491_409),
        (CANVAS_SYSTEMS["v1_12b1l_d68"], 1_443_373),
        (CANVAS_SYSTEMS["v1_6b2l_d95"], 1_488_574),
        (replace(CANVAS_SYSTEMS["v1_6b2l_d95"], width=96, heads=4), 1_519_985),
        (CANVAS_SYSTEMS["v1_12b1l_d128"], 5_036_113),
    ],
)
def test_the_systems_of_experiment_6_have_their_published_parameters(
    config: CanvasModelConfig, parameters: int
):
    with torch.device("meta"):
        model = CanvasModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_inputs_pass_the_noising_as_the_same_tensors_and_outputs_do_not():
    model = random_model()
    canvas = moving_squares(3, seed=1)
    draws = model.draw(3, torch.Generator().manual_seed(0))
    noisy = model.noised(canvas, draws.noise, draws.level)
    for name in model.layout.inputs:
        assert noisy[name] is canvas[name]
    for name in model.layout.outputs:
        level = draws.level[:, None, None]
        expected = (1 - level) * draws.noise[name] + level * canvas[name]
        torch.testing.assert_close(noisy[name], expected)
    clean, noised = model.tokens(canvas), model.tokens(noisy)
    changed = (clean != noised).any(-1)
    assert not changed[:, ~model.layout.is_output()].any()
    assert changed[:, model.layout.is_output()].all()


@pytest.mark.parametrize("objective", ["flow", "ddpm_eps"])
def test_inputs_leave_the_sampler_as_the_same_tensors(objective: str):
    model = random_model(replace(SMALL, objective=objective))
    canvas = moving_squares(2, seed=1)
    before = {name: values.clone() for name, values in canvas.items()}
    draws = model.draw(2, torch.Generator().manual_seed(0))
    made = model.sample(canvas, draws.noise, steps=2)
    for name in model.layout.inputs:
        assert made[name] is canvas[name]
        assert torch.equal(canvas[name], before[name])
    for name in model.layout.outputs:
        assert made[name].shape == canvas[name].shape
        assert not torch.equal(made[name], canvas[name])


def test_sampling_never_reads_the_outputs_that_it_is_to_make():
    model = random_model()
    canvas = moving_squares(2, seed=1)
    noise = model.draw(2, torch.Generator().manual_seed(0)).noise
    given = {name: canvas[name] for name in model.layout.inputs}
    made = model.sample(canvas, noise, steps=3)
    again = model.sample(given, noise, steps=3)
    assert all(torch.equal(made[name], again[name]) for name in model.layout.outputs)


def test_one_step_of_flow_is_the_prediction_from_noise():
    model = random_model()
    canvas = moving_squares(2, seed=1)
    noise = model.draw(2, torch.Generator().manual_seed(0)).noise
    made = model.sample(canvas, noise, steps=1)
    predicted = model({**canvas, **noise}, torch.zeros(2)).predicted
    for name in model.layout.outputs:
        torch.testing.assert_close(made[name], predicted[name])


def test_the_loss_is_the_mean_square_over_each_output_region_and_nothing_else():
    model = random_model()
    canvas = moving_squares(3, seed=1)
    draws = model.draw(3, torch.Generator().manual_seed(0))
    losses = model.loss(canvas, draws)
    out = model(model.noised(canvas, draws.noise, draws.level), draws.level)
    assert set(losses.objective) == {"future_frames", "reward", "future_actions"}
    for name, loss in losses.objective.items():
        expected = (out.predicted[name] - canvas[name]).square().mean()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(losses.error[name], expected.detach())
        assert not losses.error[name].requires_grad


def test_by_eps_the_loss_is_of_the_noise_and_the_error_of_the_values():
    model = random_model(replace(SMALL, objective="ddpm_eps"))
    canvas = moving_squares(3, seed=1)
    draws = model.draw(3, torch.Generator().manual_seed(0))
    losses = model.loss(canvas, draws)
    noisy = model.noised(canvas, draws.noise, draws.level)
    predicted = model(noisy, draws.level).predicted["future_actions"]
    noise, values = draws.noise["future_actions"], canvas["future_actions"]
    torch.testing.assert_close(
        losses.objective["future_actions"], (predicted - noise).square().mean()
    )
    # sample = s values + n noise: s and n from two samples of the same level.
    zero = dict.fromkeys(("future_frames", "reward"), torch.zeros(())) | {
        "future_actions": torch.zeros_like(noise)
    }
    ones = {name: torch.ones_like(values) for name in model.layout.outputs}
    share = {n: zero["future_actions"] for n in ones}
    spread = model.noised({**canvas, **share}, ones, draws.level)["future_actions"]
    signal = model.noised({**canvas, **ones}, share, draws.level)["future_actions"]
    clean = (noisy["future_actions"] - spread * predicted) / signal
    torch.testing.assert_close(
        losses.error["future_actions"], (clean - values).square().mean().detach()
    )


def test_the_loss_sends_no_gradient_into_the_last_tokens_of_inputs():
    """What the last block makes of an input position is compared with nothing."""
    model = random_model()
    kept: list[Tensor] = []

    def keep(_: object, arguments: tuple[Tensor, ...]) -> None:
        arguments[0].retain_grad()
        kept.append(arguments[0])

    model.out_norm.register_forward_pre_hook(keep)
    canvas = moving_squares(2, seed=1)
    losses = model.loss(canvas, model.draw(2, torch.Generator().manual_seed(0)))
    torch.stack(list(losses.objective.values())).sum().backward()
    gradient = kept[0].grad
    assert gradient is not None
    reached = (gradient != 0).any(-1).all(0)
    torch.testing.assert_close(reached, model.layout.is_output())


def test_content_is_added_to_the_learned_position_of_its_place():
    model = random_model()
    canvas = moving_squares(2, seed=1)
    contents = (model.tokens(canvas) - model.position).detach()
    for region in model.layout.regions:
        expected = model.embedders[region.kind](canvas[region.name])
        at = model.layout.positions(region.name)
        torch.testing.assert_close(contents[:, at], expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        model.position.add_(1)
    torch.testing.assert_close(model.tokens(canvas).detach() - model.position, contents)


def test_positions_of_no_region_carry_their_position_alone():
    layout = CanvasLayout(
        (1, 1, 3), (Region("arm", "action", range(1), range(1), range(1, 2)),), ("arm",)
    )
    model = random_model(layout=layout)
    tokens = model.tokens({"arm": torch.ones(2, 1, 4)})
    torch.testing.assert_close(tokens[:, [0, 2]], model.position[[0, 2]].expand(2, -1, -1))
    assert (tokens[:, 1] != model.position[1]).all()


@pytest.mark.parametrize("execution", ["mask", "dispatch"])
def test_a_region_may_have_any_name(execution: str):
    arm = Region("robot 1.arm", "action", range(1), range(1), range(2))
    layout = CanvasLayout((1, 1, 2), (arm,), ("robot 1.arm",))
    model = random_model(replace(SMALL, execution=execution), layout)
    predicted = model({"robot 1.arm": torch.ones(1, 2, 4)}, torch.zeros(1)).predicted
    assert predicted["robot 1.arm"].shape == (1, 2, 4)


@pytest.mark.parametrize("execution", ["mask", "dispatch"])
def test_only_what_the_topology_connects_reaches_a_prediction(execution: str):
    """Actions may see proprio, at any depth; frames see both, and are seen by none."""
    topology = CanvasTopology(
        (
            Connection("future_actions", "proprio"),
            Connection("future_frames", "future_actions"),
            Connection("future_frames", "proprio"),
        )
    )
    model = random_model(replace(SMALL, execution=execution), topology=topology)
    canvas = moving_squares(2, seed=1)
    floats = [name for name in canvas if canvas[name].is_floating_point()]
    for name in floats:
        canvas[name] = canvas[name].clone().requires_grad_()
    predicted = model(canvas, torch.full((2,), 0.5)).predicted
    for output, sees in (
        ("future_actions", {"future_actions", "proprio"}),
        ("future_frames", {"future_frames", "future_actions", "proprio"}),
        ("reward", {"reward"}),
    ):
        total = predicted[output].square().sum()
        gradients = torch.autograd.grad(
            total, [canvas[name] for name in floats], retain_graph=True, allow_unused=True
        )
        reached = {
            name for name, gradient in zip(floats, gradients, strict=True) if has_effect(gradient)
        }
        assert reached == sees


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_mask_and_dispatch_share_their_weights(name: str):
    """They are two ways to run one model: the same state, and the same function where it can be."""
    masked, dispatched = (
        random_model(replace(SMALL, topology=name, execution=execution))
        for execution in ("mask", "dispatch")
    )
    dispatched.load_state_dict(masked.state_dict())
    canvas = moving_squares(2, seed=1)
    level = torch.full((2,), 0.5)
    ours, theirs = (model(canvas, level).predicted["reward"] for model in (masked, dispatched))
    if name == "isolated":  # the one with a single connection for each region
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    else:
        assert (ours - theirs).abs().max() > 1e-3


def test_input_tokens_are_told_the_level_of_outputs_or_their_own():
    level = torch.tensor([0.2, 0.7])
    shared = random_model()
    torch.testing.assert_close(shared.condition(level)[0, 0], shared.condition(level[:1])[0, 0])
    clean = random_model(replace(SMALL, input_level="clean"))
    told = clean.condition(level)
    is_output = clean.layout.is_output()
    at_one = shared.condition(torch.ones(1))[0, 0].expand(2, int((~is_output).sum()), -1)
    torch.testing.assert_close(told[:, ~is_output], at_one)
    at_level = shared.condition(level).expand(-1, int(is_output.sum()), -1)
    torch.testing.assert_close(told[:, is_output], at_level)


def test_one_way_with_clean_inputs_computes_inputs_alike_at_every_level():
    """So they can be encoded once for all denoising steps."""
    config = replace(SMALL, topology="one_way", input_level="clean")
    model = random_model(config)
    canvas = moving_squares(1, seed=1)
    inputs = ~model.layout.is_output()
    ends: list[Tensor] = []
    for seed, level in ((0, 0.1), (1, 0.9)):
        noise = model.draw(1, torch.Generator().manual_seed(seed)).noise
        levels = torch.tensor([level])
        noisy = model.noised(canvas, noise, levels)
        states = model(noisy, levels, keep_states=True).states
        assert states is not None
        ends.append(states[-1])
    torch.testing.assert_close(ends[0][:, inputs], ends[1][:, inputs])
    assert (ends[0] - ends[1])[:, ~inputs].abs().max() > 1e-2


def test_geometric_positions_are_the_identity_at_the_start_and_then_matter():
    torch.manual_seed(0)
    plain = CanvasModel(SMALL).eval()
    v2 = CanvasModel(replace(SMALL, geometric=True)).eval()
    missing = v2.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all("query_positions" in key for key in missing)
    canvas, level = moving_squares(2, seed=1), torch.full((2,), 0.5)
    before, after = (model(canvas, level).predicted["reward"] for model in (plain, v2))
    torch.testing.assert_close(before, after)
    for name, parameter in v2.named_parameters():
        if "query_positions" in name:
            torch.nn.init.normal_(parameter)
    moved = v2(canvas, level).predicted["reward"]
    assert (moved - before).abs().max() > 1e-3


def test_v2_has_every_part_that_v1_has_not():
    config = CANVAS_SYSTEMS["v2_3b4l"]
    assert config.geometric
    assert config.loops.sharpest > 1
    assert config.loops.halting == "token"
    model = random_model(replace(config, width=32))
    canvas = moving_squares(2, seed=1)
    draws = model.draw(2, torch.Generator().manual_seed(0))
    losses = model.train().loss(canvas, draws)
    assert losses.loops_used.shape == (2, 120)
    assert losses.ponder.item() == pytest.approx(
        config.loops.ponder * losses.loops_used.mean().item()
    )
    used = model.eval()(canvas, draws.level).loops_used
    assert ((used >= 1) & (used <= 4)).all()


def test_a_shallower_pass_is_asked_for_by_its_loops():
    model = random_model()
    canvas, level = moving_squares(1, seed=1), torch.full((1,), 0.5)
    assert (model(canvas, level, loops=1).loops_used == 1).all()
    with pytest.raises(ConfigError, match="loops=3"):
        model(canvas, level, loops=3)


@pytest.mark.parametrize("topology", ["dense", "causal_in_time"])
def test_the_forward_pass_is_one_graph(topology: str):
    config = replace(SMALL, topology=topology)
    model = random_model(config).requires_grad_(False)
    canvas, level = moving_squares(2, seed=1), torch.full((2,), 0.5)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(canvas, level).predicted, model(canvas, level).predicted)
