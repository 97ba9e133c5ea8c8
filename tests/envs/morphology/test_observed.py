import numpy as np
import pytest

from loopdit.envs.morphology.graph import body_graph
from loopdit.envs.morphology.observed import CONTACT, SLOTS, motor_places, observed_slots
from loopdit.envs.suites.locomotion import Locomotion, tasks
from loopdit.errors import ConfigError

# Gymnasium's documentation: numbers observed, motors.
DIMENSIONS = {
    "Ant-v5": (105, 8),
    "HalfCheetah-v5": (17, 6),
    "Hopper-v5": (11, 3),
    "Walker2d-v5": (17, 6),
    "Swimmer-v5": (8, 2),
}


def ran(task: str) -> Locomotion:
    """A runner some way into an episode, with contacts."""
    robot = Locomotion(task)
    robot.reset(5)
    rng = np.random.default_rng(0)
    for _ in range(30):
        robot.step(rng.uniform(-1, 1, robot.action_spec.shape).astype(np.float32))
    return robot


@pytest.mark.parametrize("task", tasks())
def test_every_number_gymnasium_documents_has_a_slot_of_its_own(task: str):
    robot = Locomotion(task)
    joints, slots = observed_slots(robot.model, robot.proprio_spec.labels or ())
    assert (len(joints), len(robot.action_spec.labels or ())) == DIMENSIONS[task]
    assert len(set(zip(joints.tolist(), slots.tolist(), strict=True))) == len(joints)
    assert slots.max() < SLOTS
    assert joints.max() == robot.model.njnt - 1


@pytest.mark.parametrize("task", tasks())
def test_the_places_of_motors_hold_the_angles_and_rates_of_their_joints(task: str):
    robot = ran(task)
    joints, slots = observed_slots(robot.model, robot.proprio_spec.labels or ())
    driven = body_graph(robot.model).motor_joint
    angles, rates = motor_places(joints, slots, driven)
    seen, data = robot.proprio(), robot.data
    np.testing.assert_allclose(seen[angles], [data.joint(int(j)).qpos[0] for j in driven])
    sensed = np.array([data.joint(int(j)).qvel[0] for j in driven])
    clipped = task in ("Hopper-v5", "Walker2d-v5")  # by the suite
    np.testing.assert_allclose(seen[rates], np.clip(sensed, -10, 10) if clipped else sensed)


def test_contact_forces_go_to_the_joint_that_moves_the_body_they_act_on():
    robot = ran("Ant-v5")
    joints, slots = observed_slots(robot.model, robot.proprio_spec.labels or ())
    forces = np.clip(robot.data.cfrc_ext[1:], -1, 1)  # as the suite observes them
    foot = robot.model.jnt_bodyid[robot.model.joint("ankle_1").id]
    at_ankle = (joints == robot.model.joint("ankle_1").id) & (slots >= CONTACT)
    np.testing.assert_allclose(robot.proprio()[at_ankle], forces[foot - 1])
    # The torso's joint also has the four upper legs, which have none of their own.
    at_torso = (joints == robot.model.joint("root").id) & (slots >= CONTACT)
    np.testing.assert_allclose(robot.proprio()[at_torso], forces[[0, 1, 4, 7, 10]].ravel())


def test_an_observation_of_another_model_is_refused_with_its_numbers():
    labels = Locomotion("Hopper-v5").proprio_spec.labels or ()
    with pytest.raises(ConfigError, match=r"11 numbers .*not of this model, which has 9 positions"):
        observed_slots(Locomotion("HalfCheetah-v5").model, labels)
