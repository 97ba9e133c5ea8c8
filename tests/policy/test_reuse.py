import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.policy.policies import SMALL, small_spec, small_store

from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.statistics import VectorStatistics
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.errors import CheckpointError, ConfigError
from loopdit.policy.checkpoint import load_policy, save_checkpoint
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.normalization import NormalizeConfig, fit_normalizer
from loopdit.policy.training.reuse import Reuse, start_from
from loopdit.policy.training.train import train
from loopdit.policy.training.weight_matches import match_weight

ACTIONS = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")


def spec(
    cameras: tuple[str, ...] = ("front", "wrist"),
    proprio: tuple[str, ...] = ("x", "y", "opening"),
    action: tuple[str, ...] = ACTIONS,
) -> PolicySpec:
    frames = [TensorSpec(f"images.{name}", (16, 16, 3), "uint8") for name in cameras]
    return PolicySpec(
        observations=(*frames, TensorSpec(PROPRIO, (len(proprio),), "float32", labels=proprio)),
        action=TensorSpec("action", (len(action),), "float32", labels=action),
        action_frame="delta",
        control_period_s=0.1,
    )


def policy(of: PolicySpec, seed: int, config: LoopedDiTConfig = SMALL) -> LoopedPolicy:
    torch.manual_seed(seed)
    made = LoopedPolicy(of, config)
    with torch.no_grad():
        for parameter in made.parameters():  # no two alike, so that a wrong place shows
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture
def old(tmp_path: Path) -> LoopedPolicy:
    made = policy(spec(), seed=0)
    made.normalizer.get_buffer("action_mean").copy_(torch.arange(7.0))
    save_checkpoint(tmp_path / "old", made, {"data_seeds": [0, 99]})
    return made


def started(new: LoopedPolicy, tmp_path: Path, statistics: bool = False) -> Reuse:
    return start_from(new, str(tmp_path / "old"), statistics)


def status(reuse: Reuse) -> dict[str, str]:
    return {tensor.name: tensor.status for tensor in reuse.tensors}


def test_the_same_policy_starts_with_the_same_weights_to_the_bit(old: LoopedPolicy, tmp_path: Path):
    new = policy(spec(), seed=1)
    reuse = started(new, tmp_path)
    for name, value in new.model.state_dict().items():
        assert torch.equal(value, old.model.state_dict()[name]), name
    assert set(status(reuse).values()) == {"reused"}
    assert reuse.count == sum(p.numel() for p in new.parameters())
    assert not torch.equal(
        new.normalizer.get_buffer("action_mean"), old.normalizer.get_buffer("action_mean")
    )


def test_an_action_expert_begins_as_the_stack_that_was_for_both(old: LoopedPolicy, tmp_path: Path):
    reuse = started(policy(spec(), 1, replace(SMALL, action_expert=True)), tmp_path)
    assert set(status(reuse).values()) == {"reused"}
    new = policy(spec(), 2, replace(SMALL, action_expert=True))
    started(new, tmp_path)
    for own, both in zip(new.model.action_stack, old.model.stack, strict=True):
        for name, value in own.state_dict().items():
            assert torch.equal(value, both.state_dict()[name]), name

    save_checkpoint(tmp_path / "expert", new, {"data_seeds": [0, 99]})
    assert start_from(policy(spec(), 3), str(tmp_path / "expert")).lost == ("action_blocks",)


def test_cameras_are_matched_by_name_wherever_they_stand(old: LoopedPolicy, tmp_path: Path):
    new = policy(spec(cameras=("wrist", "top")), seed=1)
    fresh = policy(spec(cameras=("wrist", "top")), seed=1)
    reuse = started(new, tmp_path)
    here, there, before = new.model, old.model, fresh.model
    for name, value in here.cameras[0].state_dict().items():
        assert torch.equal(value, there.cameras[1].state_dict()[name])
    for name, value in here.cameras[1].state_dict().items():
        assert torch.equal(value, before.cameras[1].state_dict()[name])
    places, old_places = here.observation_position, there.observation_position
    assert torch.equal(places[:4], old_places[4:8])
    assert torch.equal(places[4:8], before.observation_position[4:8])
    assert torch.equal(places[8], old_places[8])  # of the proprio
    said = reuse.table()
    assert "new     camera top" in said
    assert "a camera it did not have" in said
    assert "unused  images.front" in said
    assert "partly  observation_position" in said


def test_elements_are_matched_by_label(old: LoopedPolicy, tmp_path: Path):
    labels = (*ACTIONS[:6], "speed", "gripper")
    new = policy(spec(proprio=("opening", "x"), action=labels), seed=1)
    fresh = policy(spec(proprio=("opening", "x"), action=labels), seed=1)
    reuse = started(new, tmp_path)
    here, there, before = new.model, old.model, fresh.model
    assert torch.equal(here.proprio.weight, there.proprio.weight[:, [2, 0]])
    group = SMALL.actions_per_token
    into, was, start = (m.action_in.weight.unflatten(1, (group, -1)) for m in (here, there, before))
    known = [0, 1, 2, 3, 4, 5, 7]
    assert torch.equal(into[:, :, known], was)
    assert torch.equal(into[:, :, 6], start[:, :, 6])
    for kind in ("weight", "bias"):
        whole = (model.action_out.get_parameter(kind) for model in (here, there, before))
        out, was, start = (rows.unflatten(0, (group, -1)) for rows in whole)
        assert torch.equal(out[:, known], was)
        assert torch.equal(out[:, 6], start[:, 6])
    assert "action_in.weight         32x16 from 32x14   new: speed" in reuse.table()
    assert "unused  proprio y" in reuse.table()


def test_other_sizes_take_over_what_they_have_in_common(old: LoopedPolicy, tmp_path: Path):
    config = replace(SMALL, blocks=2, max_loops=3, action_horizon=6, history=2)
    new = policy(spec(), seed=1, config=config)
    found = status(started(new, tmp_path))
    assert torch.equal(new.model.loop_embedding[:2], old.model.loop_embedding)
    assert torch.equal(new.model.action_position[:2], old.model.action_position)
    assert found["loop_embedding"] == found["action_position"] == "partly"
    assert {found[name] for name in found if name.startswith("blocks.0.")} == {"reused"}
    assert {found[name] for name in found if name.startswith("blocks.1.")} == {"new"}
    assert found["history_position"] == "new"


def test_past_steps_are_matched_by_their_age(tmp_path: Path):
    short, long = (policy(spec(), 2, replace(SMALL, history=steps)) for steps in (2, 3))
    save_checkpoint(tmp_path / "old", short, {})
    started(long, tmp_path)
    here, there = (each.model.get_parameter("history_position") for each in (long, short))
    assert torch.equal(here[1:], there)


def test_a_wider_model_keeps_only_what_does_not_depend_on_the_width(
    old: LoopedPolicy, tmp_path: Path
):
    found = status(started(policy(spec(), 1, replace(SMALL, width=64)), tmp_path))
    kept = {name for name, what in found.items() if what != "new"}
    assert kept == {name for name in found if ".features." in name}


def test_a_policy_that_nothing_fits_is_refused_with_the_reasons(old: LoopedPolicy, tmp_path: Path):
    new = policy(spec(cameras=("top",)), 1, replace(SMALL, width=64))
    with pytest.raises(ConfigError, match=r"old has nothing that fits .* width=64 where it had 32"):
        started(new, tmp_path)


def test_a_folder_that_is_no_policy_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        started(policy(spec(), 1), tmp_path)


def test_statistics_are_the_new_datas_or_for_what_both_have_the_old_ones(tmp_path: Path):
    def measured(scale: float, size: int) -> VectorStatistics:
        zeros, spread = (0.0,) * size, (scale,) * size
        low = tuple(-value for value in spread)
        return VectorStatistics(zeros, spread, low, spread, low, spread)

    before = policy(spec(), 0)
    both = {"action": measured(2.0, 7), PROPRIO: measured(1.0, 3)}
    fit_normalizer(before, both, NormalizeConfig(action="quantile", keep=["gripper"]))
    save_checkpoint(tmp_path / "old", before, {})
    for statistics in (False, True):
        new = policy(spec(action=("speed", *ACTIONS)), 1)
        found = {"action": measured(5.0, 8), PROPRIO: measured(9.0, 3)}
        fit_normalizer(new, found, NormalizeConfig())
        started(new, tmp_path, statistics)
        spread = new.normalizer.get_buffer("action_spread").tolist()
        far = new.normalizer.chunk(torch.full((1, 1, 8), 100.0))[0, 0].tolist()
        if statistics:
            assert spread == [5.0] + [2.0] * 6 + [1.0]
            assert far == [20.0] + [1.0] * 6 + [100.0]  # clipped as before
        else:
            assert spread == [5.0] * 8
            assert far == [20.0] * 8


def test_a_bundle_can_be_started_from_and_says_where_it_comes_from():
    shipped = load_policy(default_bundle())
    made = Bundle.open(default_bundle()).provenance
    reuse = start_from(LoopedPolicy(shipped.spec, shipped.config), str(default_bundle()))
    assert set(status(reuse).values()) == {"reused"}
    assert reuse.provenance()["provenance"]["data_digest"] == made["data_digest"]


def test_a_fine_tuned_policy_begins_closer_than_a_fresh_one(tmp_path: Path):
    """A camera and an action more than it was trained with."""
    generator = torch.Generator().manual_seed(0)
    proprio = torch.randn(64, 3, generator=generator)
    chunk = torch.tanh(proprio[:, [0, 1, 2, 0, 1, 2, 0]])[:, None].expand(-1, 4, -1)
    frames = torch.randint(0, 256, (64, 16, 16, 3), dtype=torch.uint8, generator=generator)
    valid = torch.ones(64, 4, dtype=torch.bool)

    def loss(of: LoopedPolicy, actions: torch.Tensor) -> torch.Tensor:
        seen = {camera.name: frames for camera in of.spec.cameras} | {PROPRIO: proprio}
        draws = of.draw(64, torch.Generator().manual_seed(1))
        return of.losses(seen, actions, valid, draws).objective.mean()

    torch.manual_seed(0)
    trained = LoopedPolicy(spec(), SMALL)
    optimizer = torch.optim.Adam(trained.parameters(), 3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        loss(trained, chunk).backward()
        optimizer.step()
    save_checkpoint(tmp_path / "old", trained, {})

    wider = torch.cat([chunk, chunk[..., :1]], -1)
    wanted = spec(cameras=("front", "wrist", "top"), action=(*ACTIONS, "speed"))
    torch.manual_seed(1)
    fresh = LoopedPolicy(wanted, SMALL)
    torch.manual_seed(1)
    tuned = LoopedPolicy(wanted, SMALL)
    started(tuned, tmp_path)
    assert loss(tuned, wider) < 0.6 * loss(fresh, wider)


def test_a_fine_tuning_prints_what_it_reused_and_goes_on_without_what_it_began_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    small_store(tmp_path / "data")
    small_store(tmp_path / "more", small_spec(cameras=2))

    def run(out: str, data: str, steps: int, init: str = "", resume: bool = False) -> Path:
        settings = TrainConfig(
            data=str(tmp_path / data),
            out=str(tmp_path / out),
            init=init and str(tmp_path / init),
            steps=steps,
            batch_size=8,
            threads=1,
            policy=SMALL,
            resume=resume,
        )
        return train(settings)

    run("old", "data", 2)
    capsys.readouterr()
    whole = run("whole", "more", 4, init="old")
    said = capsys.readouterr().out
    assert f"weights of {tmp_path / 'old'}: " in said
    assert "new     camera camera1" in said
    run("tuned", "more", 2, init="old")
    shutil.rmtree(tmp_path / "old")
    tuned = run("tuned", "more", 4, init="old", resume=True)
    provenance = json.loads((tuned / "checkpoint.json").read_text())["provenance"]
    assert provenance["init"]["provenance"]["data_seeds"] == [0, 5]
    # The schedule of two steps is not that of four, so only what never changes can be compared.
    for name, value in load_file(whole / "model.safetensors").items():
        if name.startswith("normalizer"):
            assert torch.equal(value, load_file(tuned / "model.safetensors")[name])


def test_a_task_begins_from_its_own_row_wherever_it_stood():
    def told(*instructions: str) -> LoopedPolicy:
        config = replace(SMALL, instruction="task", instructions=list(instructions))
        return LoopedPolicy(small_spec(), config)

    match = match_weight("instruction.tasks.weight", told("b", "c"), told("a", "c"))
    assert (match.pairs, match.reason) == ([(1, 1)], "new: a")
    match = match_weight("instruction.tasks.weight", told("b", "c"), told("a", "b", "c"))
    assert (match.pairs, match.reason) == ([(1, 0), (2, 1)], "new: a")


def test_what_a_model_says_is_not_reused_where_it_says_something_else_now(
    old: LoopedPolicy, tmp_path: Path
):
    config = replace(SMALL, objective=ObjectiveConfig(kind="ddpm_eps"), injection=True)
    fresh, new = (policy(spec(), 1, config) for _ in range(2))
    reuse = started(new, tmp_path)
    assert torch.equal(new.model.action_out.weight, fresh.model.action_out.weight)
    found = status(reuse)
    assert found["action_out.weight"] == found["action_out.bias"] == "new"
    assert found["blocks.0.feedforward_in.weight"] == "reused"
    said = reuse.table()
    assert "says the noise where it said the action" in said
    assert "changed policy.objective.kind=ddpm_eps where it had flow" in said
    assert "changed policy.injection=true where it had false" in said
    assert "train_timesteps" not in said  # flow had none
    assert reuse.provenance()["changed"] == list(reuse.changed)


def test_what_means_the_same_in_two_objectives_is_reused(old: LoopedPolicy, tmp_path: Path):
    new = policy(spec(), 1, replace(SMALL, objective=ObjectiveConfig(kind="regression")))
    reuse = started(new, tmp_path)
    assert set(status(reuse).values()) == {"reused"}
    assert reuse.changed == ("policy.objective.kind=regression where it had flow",)


def test_a_gripper_that_is_learned_in_another_way_begins_afresh(old: LoopedPolicy, tmp_path: Path):
    config = replace(SMALL, objective=ObjectiveConfig(gripper="bce"))
    fresh, new = (policy(spec(), 1, config) for _ in range(2))
    reuse = started(new, tmp_path)
    group = SMALL.actions_per_token
    out, start, before = (
        made.model.action_out.weight.unflatten(0, (group, -1)) for made in (new, fresh, old)
    )
    assert torch.equal(out[:, :6], before[:, :6])
    assert torch.equal(out[:, 6], start[:, 6])
    assert status(reuse)["action_out.weight"] == "partly"
    assert "says a logit where it said the action" in reuse.table()


def test_an_injection_that_finds_no_place_is_told(tmp_path: Path):
    save_checkpoint(tmp_path / "old", policy(spec(), 0, replace(SMALL, injection=True)), {})
    reuse = started(policy(spec(), 1), tmp_path)
    assert "unused  injection" in reuse.table()
    assert reuse.changed == ("policy.injection=false where it had true",)
