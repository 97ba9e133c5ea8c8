"""Proprio rolled forward, against the simulated arm and a slow version by MuJoCo's rotations."""

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.deploy.robot.committed import packed
from loopdit.envs.arm_env import arm_spec
from loopdit.envs.registry import make_env
from loopdit.envs.rotations import matrix_of, multiply, quaternion_of
from loopdit.errors import ConfigError
from loopdit.policy.rolled_proprio import LAG, ProprioRoller

ARM = arm_spec(16)
MOST = 5


def rolled(spec: PolicySpec, proprio: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """One proprio (P,), the actions in flight (n, A)."""
    told = packed(actions, MOST, spec.action.shape[0])
    found = ProprioRoller(spec)(torch.from_numpy(proprio)[None], torch.from_numpy(told)[None])
    return found[0].numpy()


def some_actions(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform(ARM.action.low, ARM.action.high, (count, 7)).astype(np.float32)


def some_proprio(rng: np.random.Generator) -> np.ndarray:
    rotation = matrix_of(quaternion_of(rng.normal(size=3)))
    columns = rotation[:, :2].T.ravel()
    felt = [*rng.uniform(0.2, 0.3, 3), *columns, 0.5, *rng.normal(0, 0.01, 3)]
    return np.array(felt, np.float32)


def slowly_rolled(proprio: np.ndarray, actions: np.ndarray) -> np.ndarray:
    first, second = proprio[3:6], proprio[6:9]
    start = np.stack([first, second, np.cross(first, second)], axis=1).astype(float)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, start.ravel())  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs
    command = proprio[:3] + proprio[10:]
    for action in actions:
        command = command + action[:3]
        quaternion = multiply(quaternion_of(action[3:6]), quaternion)
    ahead = LAG * actions[-1, :3]
    columns = matrix_of(quaternion)[:, :2].T.ravel()
    return np.array([*(command - ahead), *columns, max(proprio[9], actions[-1, 6]), *ahead])


@pytest.mark.parametrize("count", [1, 2, MOST])
def test_shifts_add_up_and_turns_follow_each_other_in_the_base_frame(count: int):
    rng = np.random.default_rng(count)
    for _ in range(20):
        proprio, actions = some_proprio(rng), some_actions(rng, count)
        expected = slowly_rolled(proprio, actions)
        np.testing.assert_allclose(rolled(ARM, proprio, actions), expected, atol=1e-5)


def test_with_nothing_in_flight_proprio_is_what_was_felt_to_the_bit():
    proprio = some_proprio(np.random.default_rng(0))
    np.testing.assert_array_equal(rolled(ARM, proprio, np.empty((0, 7))), proprio)


def test_of_a_history_the_latest_is_rolled_and_the_others_are_left_as_they_were():
    rng = np.random.default_rng(1)
    history = torch.from_numpy(np.stack([some_proprio(rng) for _ in range(3)]))[None]
    told = torch.from_numpy(packed(some_actions(rng, 2), MOST, 7))[None]
    roller = ProprioRoller(ARM)
    found = roller(history, told)
    assert torch.equal(found[:, :2], history[:, :2])
    assert torch.equal(found[:, 2], roller(history[:, 2], told))


def test_the_arm_is_where_it_was_said_to_be_when_the_actions_in_flight_are_executed():
    env = make_env("reach", 16)
    env.observing = False
    rng = np.random.default_rng(0)
    errors: list[float] = []
    untold: list[float] = []
    for seed in range(20):
        before, _ = env.reset(seed=seed)
        steady = rng.uniform(-1, 1, 7) * [0.02, 0.02, 0.01, 0, 0, 0.1, 0] + [0, 0, 0, 0, 0, 0, 1]
        actions = np.tile(steady, (MOST, 1)).astype(np.float32)
        actions[:, :3] += rng.normal(0, 0.004, (MOST, 3)).astype(np.float32)
        after, rejected = before, False
        for action in actions:
            after, *_, info = env.step(action)
            rejected |= info["rejected"]
        if rejected:  # where the arm could not follow, nobody knew beforehand
            continue
        expected = rolled(ARM, before["proprio"], actions)
        errors.append(float(np.linalg.norm(expected[:3] - after["proprio"][:3])))
        untold.append(float(np.linalg.norm(before["proprio"][:3] - after["proprio"][:3])))
        np.testing.assert_allclose(expected[3:9], after["proprio"][3:9], atol=0.1)
        np.testing.assert_allclose(expected[9], after["proprio"][9], atol=0.02)
        np.testing.assert_allclose(expected[10:], after["proprio"][10:], atol=8e-3)
    env.close()
    assert len(errors) >= 15
    assert max(errors) < 8e-3
    assert np.mean(errors) < 0.06 * np.mean(untold)


def test_of_absolute_actions_the_last_in_flight_is_where_the_joints_will_be():
    joints = ("shoulder", "elbow")
    spec = replace(
        ARM,
        observations=(TensorSpec("proprio", (3,), "float32", (*joints, "effort"), ("rad",) * 3),),
        action=TensorSpec("action", (2,), "float32", joints[::-1], ("rad", "rad")),
    )
    proprio = np.array([1, 2, 3], np.float32)
    actions = np.array([[7, 8], [5, 6]], np.float32)
    assert rolled(spec, proprio, actions).tolist() == [6, 5, 3]
    degrees = replace(spec, action=replace(spec.action, units=("rad", "deg")))
    with pytest.raises(ConfigError, match="nothing says what shoulder does to a proprio of should"):
        ProprioRoller(degrees)


def test_a_spec_without_a_rule_for_an_action_is_refused_with_its_labels():
    pushed = replace(ARM.action, labels=(*ARM.action.labels[:6], "suction"))
    with pytest.raises(ConfigError, match=r"what suction does to a proprio of x, y, z, r11"):
        ProprioRoller(replace(ARM, action=pushed))
    with pytest.raises(ConfigError, match="actions without labels does to"):
        ProprioRoller(replace(ARM, action=TensorSpec("action", (7,), "float32")))
    proprio = TensorSpec("proprio", (3,), "float32", ("x", "y", "z"))
    with pytest.raises(ConfigError, match="what drx, dry, drz, gripper does to a proprio of x, y"):
        ProprioRoller(replace(ARM, observations=(proprio,)))


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_exported_graph_rolls_as_torch_does(tmp_path: Path):
    import onnxruntime

    rng = np.random.default_rng(2)
    proprio = torch.from_numpy(np.stack([some_proprio(rng) for _ in range(4)]))
    told = torch.from_numpy(np.stack([packed(some_actions(rng, n), MOST, 7) for n in (0, 1, 3, 5)]))
    roller = ProprioRoller(ARM).eval()
    exported = torch.export.export(roller, (proprio, told))
    assert torch.equal(exported.module()(proprio, told), roller(proprio, told))
    program = torch.onnx.export(roller, (proprio, told), dynamo=True, verbose=False)
    assert program is not None
    program.save(f"{tmp_path}/roller.onnx")
    session = onnxruntime.InferenceSession(f"{tmp_path}/roller.onnx")
    names = [each.name for each in session.get_inputs()]
    found = session.run(None, dict(zip(names, (proprio.numpy(), told.numpy()), strict=True)))[0]
    np.testing.assert_allclose(np.asarray(found), roller(proprio, told).numpy(), atol=1e-6)
