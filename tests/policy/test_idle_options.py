"""What a user gave and nothing reads is an error of the training, and of no checkpoint."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tests.policy.policies import SMALL
from tests.policy.trainings import config

from loopdit.errors import ConfigError
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.objectives.objective import ObjectiveConfig

IDLE = [
    ({"instructions": ["lift"]}, r"policy\.instructions=\['lift'\] .* policy\.instruction=words"),
    ({"encoder_frozen": False}, r"policy\.encoder_frozen=false .* policy\.encoder=pretrained:NAME"),
    ({"backbone": {"model_type": "vit"}}, r"policy\.backbone=.* policy\.encoder=pretrained"),
    (
        {"objective": ObjectiveConfig(gripper_settled=0.9)},
        r"policy\.objective\.gripper_settled=0\.9 .* policy\.objective\.gripper=bce",
    ),
    (
        {"objective": ObjectiveConfig(gripper_labels=["hand"])},
        r"policy\.objective\.gripper_labels=\['hand'\] does nothing",
    ),
    (
        {"objective": ObjectiveConfig(train_timesteps=50)},
        r"train_timesteps=50 .*\.kind=ddpm_eps, ddpm_x0 or ddpm_v\. Give that, too, or leave",
    ),
    (
        {"objective": ObjectiveConfig(kind="regression", clip=1.0)},
        r"policy\.objective\.clip=1\.0 does nothing",
    ),
    (
        {"action_expert": True, "topology": "dense"},
        r"policy\.action_expert=true does nothing .* policy\.topology=one_way",
    ),
    ({"objective": ObjectiveConfig(beta_schedule="linear")}, r"beta_schedule=linear does nothing"),
]


@pytest.mark.parametrize(("changed", "said"), IDLE)
def test_an_option_that_nothing_reads_is_refused_with_what_it_takes(
    tmp_path: Path, changed: dict[str, Any], said: str
):
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, policy=replace(SMALL, **changed))


def test_what_is_read_is_not_refused(tmp_path: Path):
    diffusion = ObjectiveConfig(
        kind="ddpm_v", clip=2.0, train_timesteps=50, gripper="bce", gripper_settled=0.9
    )
    told = replace(SMALL, instruction="words", instructions=["lift"], objective=diffusion)
    assert config(tmp_path, policy=told).policy == told
    config(tmp_path, policy=replace(SMALL, encoder="pretrained:x", encoder_frozen=False))


@pytest.mark.parametrize("changed", [changed for changed, _ in IDLE])
def test_a_checkpoint_that_was_trained_with_such_an_option_is_still_read(changed: dict[str, Any]):
    trained = replace(SMALL, **changed)
    assert LoopedDiTConfig.from_dict(asdict(trained)) == trained
