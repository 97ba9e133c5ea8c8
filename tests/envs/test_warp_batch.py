# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false
import importlib.util
from importlib import import_module

import numpy as np
import pytest

from loopdit.envs.registry import make_env
from loopdit.envs.warp_batch import WarpVectorEnv
from loopdit.errors import ConfigError

HAS_WARP = importlib.util.find_spec("mujoco_warp") is not None
needs_warp = pytest.mark.skipif(not HAS_WARP, reason="MuJoCo Warp is not installed (extra: gpu)")


@pytest.mark.skipif(HAS_WARP, reason="MuJoCo Warp is installed")
def test_without_warp_a_batch_says_what_to_install():
    with pytest.raises(ConfigError, match=r"needs MuJoCo Warp .*loopdit\[gpu\]"):
        WarpVectorEnv("lift", envs=2)


@needs_warp
def test_without_a_gpu_a_batch_names_the_other_way():
    if import_module("warp").is_cuda_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ConfigError, match="no CUDA device"):
        WarpVectorEnv("lift", envs=2)


def test_a_variation_is_refused():
    with pytest.raises(ConfigError, match="variation=mass needs a model for each world"):
        WarpVectorEnv("lift", envs=2, device="cpu", variation="mass")


def follow_c_mujoco(device: str) -> None:
    """Ten expert steps of two worlds: nothing is further than 2e-4 m or rad from C MuJoCo's."""
    singles = [make_env("lift", image_size=16) for _ in range(2)]
    batch = WarpVectorEnv("lift", envs=2, device=device, observing=False, image_size=16)
    batch.reset(seed=3)
    for i, single in enumerate(singles):
        single.observing = False
        single.reset(seed=3 + i)
    for _ in range(10):
        actions = np.stack([single.expert().action() for single in singles])
        observations, _, terminated, truncated, infos = batch.step(actions)
        for i, single in enumerate(singles):
            expected, *_ = single.step(actions[i])
            np.testing.assert_allclose(
                batch.worlds[i].arm.data.qpos, single.arm.data.qpos, atol=2e-4
            )
            np.testing.assert_allclose(observations["proprio"][i], expected["proprio"], atol=2e-4)
        assert not terminated.any()
        assert not truncated.any()
        assert not infos["unstable"].any()
    batch.close()


@needs_warp
@pytest.mark.slow  # a minute of compiling, the first time
def test_ten_control_steps_agree_with_c_mujoco_on_the_cpu():
    follow_c_mujoco("cpu")


@needs_warp
@pytest.mark.gpu
def test_ten_control_steps_agree_with_c_mujoco_on_the_gpu():
    if not import_module("warp").is_cuda_available():
        pytest.skip("this machine has no CUDA device")
    follow_c_mujoco("cuda")


@needs_warp
@pytest.mark.slow
def test_the_expert_lifts_and_worlds_reset_in_the_step_after():
    batch = WarpVectorEnv("lift", envs=2, device="cpu", observing=False, image_size=16)
    batch.reset(seed=0)
    lifted, was_over = np.zeros(2, bool), np.zeros(2, bool)
    for _ in range(40):
        actions = np.stack([world.expert().action() for world in batch.worlds])
        _, rewards, terminated, truncated, infos = batch.step(actions)
        assert not truncated.any()
        assert not terminated[was_over].any()
        assert (rewards[was_over] == 0).all()
        assert list(infos["stage"][was_over]) == ["start"] * int(was_over.sum())
        lifted |= terminated
        was_over = terminated
    assert lifted.all()
    batch.close()


@needs_warp
@pytest.mark.slow
def test_a_world_whose_physics_broke_is_unstable_and_starts_again():
    batch = WarpVectorEnv("lift", envs=2, device="cpu", observing=False, image_size=16)
    batch.reset(seed=0)
    batch.worlds[1].arm.data.qvel[:] = np.nan
    batch._physics.upload(batch.worlds)  # pyright: ignore[reportPrivateUsage] - nothing else breaks it
    hold = np.tile(np.array([0, 0, 0, 0, 0, 0, 1], np.float32), (2, 1))
    _, _, terminated, truncated, infos = batch.step(hold)
    assert (list(terminated), list(truncated)) == ([False, False], [False, True])
    assert list(infos["unstable"]) == [False, True]
    _, _, _, truncated, infos = batch.step(hold)
    assert not truncated.any()
    assert not infos["unstable"].any()
    batch.close()
