from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.policy.graft.graft_policies import CAMERA, SPEC, batch, config_of, policy_of
from torch import Tensor

from loopdit.datasets.spec import PROPRIO
from loopdit.datasets.video.clips import ClipConfig
from loopdit.errors import CheckpointError, ConfigError
from loopdit.policy.checkpoint import CheckpointContent, load_checkpoint, write_checkpoint
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.graft.backbone import keep_positions, load_backbone
from loopdit.policy.graft.checkpoint import graft_content, load_graft_checkpoint, new_policy
from loopdit.policy.graft.graft_policy import GraftPolicy


def _observation(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (2, 9, 32, 48, 3), generator=generator, dtype=torch.uint8)
    return {CAMERA: frames, PROPRIO: torch.zeros(2, 9, 3), INSTRUCTION: torch.tensor([0, 1])}


def _trained(policy: GraftPolicy) -> GraftPolicy:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in policy.trained().values():
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    policy.normalizer.action_mean.fill_(0.25)
    return policy.eval()


def _content(policy: GraftPolicy) -> CheckpointContent:
    return graft_content(policy, policy.trained(), {"step": 1})


def _acted(policy: GraftPolicy, loops: int = 2) -> Tensor:
    return policy.act(_observation(), torch.zeros(2, policy.horizon, 4), loops, 2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decoder_kind": "direct", "decoder_blocks": 2},
        {"decoder_kind": "paper", "decoder_width": 256, "decoder_blocks": 2, "action_horizon": 1},
        {"graft_looped": "expert"},
        {"graft_halting": "token", "graft_geometric": True},
    ],
)
def test_every_kind_of_policy_commands_within_the_limits_of_its_spec(options: dict[str, object]):
    policy = _trained(policy_of(**options))
    actions = _acted(policy)
    assert actions.shape == (2, policy.horizon, 4)
    assert (actions >= torch.tensor([-1, -1, -1, 0])).all()
    assert (actions <= 1).all()
    assert not torch.equal(actions[0], actions[1])  # two videos and two tasks


def test_the_same_observation_is_answered_by_the_same_actions_and_each_depth_by_its_own():
    policy = _trained(policy_of())
    assert torch.equal(_acted(policy), _acted(policy))
    assert not torch.equal(_acted(policy, 1), _acted(policy, 2))


def test_where_the_decoder_alone_is_looped_the_video_model_runs_once_for_all_depths():
    policy = _trained(policy_of(graft_looped="expert", loops=3))
    latents, task, *_ = batch(policy)
    with torch.no_grad():
        features = [policy.features(latents, task, loops) for loops in (1, 3)]
    assert torch.equal(features[0].hidden, features[1].hidden)
    assert not torch.equal(_acted(policy, 1), _acted(policy, 3))


def test_a_policy_sees_its_clip_and_not_what_else_is_observed():
    policy = _trained(policy_of())
    noise = torch.zeros(2, policy.horizon, 4)
    other = _observation() | {PROPRIO: torch.ones(2, 9, 3)}
    assert torch.equal(policy.act(other, noise, 2, 2), _acted(policy))
    assert not torch.equal(policy.act(_observation(1), noise, 2, 2), _acted(policy))


def test_positions_that_are_kept_are_those_that_diffusers_would_make_each_time():
    latents, text = torch.randn(1, 2, 16, 4, 6), torch.randn(1, 8, 24)
    transformer = load_backbone("tiny").transformer
    with torch.no_grad():
        before = transformer(latents, text, torch.tensor([9]), return_dict=False)[0]
        keep_positions(transformer, 2, 4, 6)
        after = transformer(latents, text, torch.tensor([9]), return_dict=False)[0]
    assert torch.equal(after, before)
    assert transformer.patch_embed.pos_embedding.shape == (1, 8 + 2 * 2 * 3, 48)


def test_a_policy_is_given_as_many_frames_as_its_clip_has():
    assert policy_of().spec == SPEC.with_history(9)


def test_a_policy_of_the_present_frame_alone_reads_its_one_latent_frame():
    policy = _trained(policy_of(video=ClipConfig(frames=1, height=32, width=48)))
    assert policy.spec == SPEC
    assert policy.latent_shape == (1, 16, 4, 6)
    frames = _observation()[CAMERA][:, 0]
    observation = _observation() | {CAMERA: frames}
    with torch.no_grad():
        pixels = frames.float().div(127.5).sub(1).permute(0, 3, 1, 2)[:, :, None]  # (B, 3, 1, H, W)
        (posterior,) = policy.encoder.vae.encode(pixels, return_dict=False)
    wanted = 3.0 * posterior.mode().transpose(1, 2)  # 3: the tiny autoencoder's scaling
    assert torch.equal(policy.latents(observation), wanted)
    noise = torch.zeros(2, policy.horizon, 4)
    actions = [policy.act(observation, noise, loops, 2) for loops in (1, 2)]
    assert not torch.equal(*actions)
    moved = observation | {CAMERA: 255 - frames}
    assert not torch.equal(policy.act(moved, noise, 2, 2), actions[1])


def test_what_is_served_is_what_training_reads_at_the_served_level():
    policy = _trained(policy_of())
    latents, task, *_ = batch(policy)
    with torch.no_grad():
        levels: Any = torch.tensor([100, 100])  # diffusers' annotation says IntTensor
        noisy = policy.scheduler.add_noise(
            latents, policy.served_noise.expand(2, -1, -1, -1, -1), levels
        )  # pyright: ignore[reportArgumentType]
        said = policy.graft(noisy, policy.text(task), levels, 2)
        assert torch.equal(policy.features(latents, task, 2).hidden, said.hidden)


def test_a_checkpoint_has_what_was_trained_and_acts_as_what_was_saved(tmp_path: Path):
    policy = _trained(new_policy(SPEC, config_of()))
    write_checkpoint(tmp_path, _content(policy))
    loaded = load_graft_checkpoint(tmp_path).policy
    assert torch.equal(_acted(loaded), _acted(policy))
    saved = load_file(tmp_path / "model.safetensors")
    assert not [name for name in saved if name.startswith(("base/", "vae/"))]
    assert sum(v.numel() for n, v in saved.items() if not n.startswith("kept/")) == sum(
        p.numel() for p in policy.trained().values()
    )


def test_real_weights_are_read_from_a_local_folder_which_a_whole_checkpoint_needs_no_more(
    tmp_path: Path,
):
    folder = tmp_path / "CogVideoX"
    backbone = load_backbone("tiny")
    with torch.no_grad():
        backbone.transformer.proj_out.bias.add_(0.5)  # not those of any seed
    for part in backbone._fields:
        getattr(backbone, part).save_pretrained(folder / part)
    policy = _trained(new_policy(SPEC, config_of(model=str(folder))))
    whole = _trained(new_policy(SPEC, config_of(model=str(folder), whole=True)))
    write_checkpoint(tmp_path / "delta", _content(policy))
    write_checkpoint(tmp_path / "whole", _content(whole))
    assert torch.equal(_acted(load_graft_checkpoint(tmp_path / "delta").policy), _acted(policy))
    folder.rename(tmp_path / "elsewhere")
    assert torch.equal(_acted(load_graft_checkpoint(tmp_path / "whole").policy), _acted(whole))
    with pytest.raises(ConfigError, match="is no folder here"):
        load_graft_checkpoint(tmp_path / "delta")


def test_a_checkpoint_on_another_video_model_is_refused(tmp_path: Path):
    folder = tmp_path / "CogVideoX"
    for part, module in load_backbone("tiny")._asdict().items():
        module.save_pretrained(folder / part)
    write_checkpoint(tmp_path / "delta", _content(new_policy(SPEC, config_of(model=str(folder)))))
    other = load_backbone("tiny").transformer
    with torch.no_grad():
        other.proj_out.bias.add_(0.5)
    other.save_pretrained(folder / "transformer")
    with pytest.raises(CheckpointError, match="trained on another transformer"):
        load_graft_checkpoint(tmp_path / "delta")


def test_one_kind_of_checkpoint_is_not_taken_for_the_other(tmp_path: Path):
    write_checkpoint(tmp_path, _content(new_policy(SPEC, config_of())))
    with pytest.raises(CheckpointError, match="of the kind 'graft'"):
        load_checkpoint(tmp_path)


def test_folders_that_are_no_cogvideox_are_refused_by_what_is_wrong(tmp_path: Path):
    with pytest.raises(ConfigError, match="is no folder here"):
        load_backbone("CogVideoX-2b")
    with pytest.raises(CheckpointError, match="has no transformer/"):
        load_backbone(str(tmp_path))
    backbone = load_backbone("tiny")
    backbone.vae.save_pretrained(tmp_path / "transformer")
    with pytest.raises(CheckpointError, match="is a AutoencoderKLCogVideoX"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"action_horizon": 0}, "action_horizon=0"),
        ({"noise_level": 1000}, "noise_level=1000 must be from 0 to 999"),
        (
            {"decoder_kind": "direct", "decoder_blocks": 2, "graft_looped": "expert"},
            "loops the blocks of",
        ),
        ({"text": "t5"}, "text=t5 needs a model with a text encoder"),
    ],
)
def test_options_that_cannot_work_together_are_refused(options: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said):
        config_of(**options)


def test_a_gripper_that_is_not_there_is_named():
    from dataclasses import replace

    nameless = replace(SPEC, action=replace(SPEC.action, labels=("a", "b", "c", "d")))
    with pytest.raises(ConfigError, match="no action is called by gripper"):
        GraftPolicy(nameless, config_of())
