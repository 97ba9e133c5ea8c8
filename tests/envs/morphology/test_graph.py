# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

from collections import deque

import gymnasium
import mujoco
import numpy as np
import pytest

from loopdit.envs.morphology.graph import FARTHEST, FEATURES, NO_JOINT, body_graph
from loopdit.envs.registry import make_env
from loopdit.envs.suites.locomotion import Locomotion, tasks

# What is to be counted: an upper arm that turns, a hand that slides, a ball beside them.
TWO_LINKS = """
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <worldbody>
    <geom type="plane" size="5 5 .1"/>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" range="-1.5708 0.7854"/>
      <geom type="box" size=".1 .2 .3" mass="10"/>
      <body name="hand" pos=".5 0 0">
        <joint name="reach" type="slide" axis="1 0 0"/>
        <geom type="box" size=".1 .1 .1" pos="0 0 .2" euler="0 0 1.5708" mass="1"/>
      </body>
    </body>
    <body name="ball" pos="2 0 0"><freejoint/><geom type="sphere" size=".1" mass=".1"/></body>
  </worldbody>
  <tendon><fixed name="cable"><joint joint="reach" coef="1"/></fixed></tendon>
  <actuator>
    <motor joint="shoulder" gear="9" ctrlrange="-1 1"/>
    <motor tendon="cable"/>
    <general body="ball"/>
  </actuator>
</mujoco>
"""


def model_of(name: str) -> mujoco.MjModel:
    if name == "two links":
        return mujoco.MjModel.from_xml_string(TWO_LINKS)
    if name == "arm":
        return make_env("stack").arm.model
    if name == "Humanoid-v5":
        return gymnasium.make(name).unwrapped.model
    return Locomotion(name).model


MODELS = ("two links", "arm", "Humanoid-v5", *tasks())


def breadth_first(parents: np.ndarray, start: int) -> dict[int, int]:
    """Edges from `start` to every body of the tree, the slow way."""
    neighbours: dict[int, set[int]] = {body: set() for body in range(len(parents))}
    for body in range(1, len(parents)):
        neighbours[body].add(int(parents[body]))
        neighbours[int(parents[body])].add(body)
    found, waiting = {start: 0}, deque([start])
    while waiting:
        at = waiting.popleft()
        for near in neighbours[at] - found.keys():
            found[near] = found[at] + 1
            waiting.append(near)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_distances_are_those_of_a_breadth_first_search_in_the_tree(name: str):
    model = model_of(name)
    graph = body_graph(model)
    bodies = range(1, model.nbody)
    slow = [[breadth_first(model.body_parentid, a)[b] for b in bodies] for a in bodies]
    np.testing.assert_array_equal(graph.distances, np.minimum(slow, FARTHEST))


@pytest.mark.parametrize("name", MODELS)
def test_any_model_is_described_by_numbers_of_order_one(name: str):
    model = model_of(name)
    graph = body_graph(model)
    assert graph.features.shape == (model.nbody - 1, len(FEATURES))
    assert graph.features.dtype == np.float32
    assert np.isfinite(graph.features).all()
    assert np.abs(graph.features).max() <= 3
    assert len(graph.names) == len(graph.features)


def test_two_links_are_described_as_they_were_built():
    graph = body_graph(model_of("two links"))
    upper, hand, ball = graph.features
    box = np.sqrt(np.array([0.2**2 + 0.3**2, 0.1**2 + 0.3**2, 0.1**2 + 0.2**2]) / 3)
    np.testing.assert_allclose(upper[0], 1, atol=1e-6)  # log10 of 10 kg
    np.testing.assert_allclose(sorted(upper[1:4]), sorted(box), rtol=1e-5)
    np.testing.assert_allclose(upper[4:7], [0, 0, 1])
    np.testing.assert_allclose(upper[7:10], [0.1, 0.2, 0.3], rtol=1e-5)
    np.testing.assert_array_equal(upper[10:14], [0, 0, 0, 1])
    np.testing.assert_allclose(upper[14:17], [0, 1, 0])
    np.testing.assert_allclose(upper[17:20], [-0.5, 0.25, 1], rtol=1e-4)
    np.testing.assert_allclose(upper[20:], [0.5, 1 / 8, 1 / 4], rtol=1e-5)  # log10(1 + 9) / 2
    np.testing.assert_array_equal(hand[10:14], [0, 0, 1, 0])
    np.testing.assert_array_equal(hand[17:20], [0, 0, 0])
    np.testing.assert_allclose(hand[21:], [2 / 8, 0])
    np.testing.assert_array_equal(ball[10:14], [1, 0, 0, 0])
    assert graph.distances.tolist() == [[0, 1, 2], [1, 0, 3], [2, 3, 0]]


def test_motors_are_found_by_the_joint_tendon_or_body_that_they_act_on():
    graph = body_graph(model_of("two links"))
    assert graph.motor_joint.tolist() == [0, 1, NO_JOINT]
    assert graph.motor_body.tolist() == [0, 1, 2]
    assert graph.joint_body.tolist() == [0, 1, 2]


# Of Gymnasium's documentation, action by action.
DRIVEN = {
    "Ant-v5": "hip_4 ankle_4 hip_1 ankle_1 hip_2 ankle_2 hip_3 ankle_3",
    "HalfCheetah-v5": "bthigh bshin bfoot fthigh fshin ffoot",
    "Swimmer-v5": "motor1_rot motor2_rot",
}


@pytest.mark.parametrize("name", DRIVEN)
def test_the_motors_of_a_runner_drive_the_joints_that_gymnasium_documents(name: str):
    model = model_of(name)
    driven = [model.joint(int(joint)).name for joint in body_graph(model).motor_joint]
    assert driven == DRIVEN[name].split()


def test_the_graph_is_of_the_model_and_not_of_where_it_is():
    robot = Locomotion("Ant-v5")
    before = body_graph(robot.model).features
    robot.reset(3)
    for _ in range(20):
        robot.step(np.ones(8, np.float32))
    np.testing.assert_array_equal(body_graph(robot.model).features, before)
