"""The wrapper around every suite, on a simulation of a few lines with a real MuJoCo model."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from loopdit.envs.suites import catalogue
from loopdit.envs.suites.catalogue import SUITES, make_here, suite_of
from loopdit.envs.suites.robosuite import rotation_vector
from loopdit.envs.suites.suite_env import (
    FREE_CAMERA,
    Outcome,
    SuiteEnv,
    limited,
    no_expert,
    numbered,
    vector,
)
from loopdit.errors import ConfigError

SLIDER = """
<mujoco><option timestep="0.01" gravity="0 0 0"/>
  <worldbody><light pos="0 0 2"/>
    <body><joint name="rail" type="slide" axis="1 0 0"/><geom size=".1" rgba="{color} 1"/></body>
  </worldbody>
  <actuator><general joint="rail" gainprm="1"/></actuator>
</mujoco>
"""


class Slider:
    """Pushed along a rail from where the seed says; success beyond 1 m, past half way at 0.5 m.

    Like some suites it compiles its model anew at every reset.
    """

    instruction = "push"
    control_period_s = 0.01
    max_steps = 60
    cameras: tuple[str, ...] = (FREE_CAMERA,)
    stages: tuple[str, ...] = ("half way", "success")
    package = "slider 0.1"
    action_frame = "a force"
    proprio_spec = vector("proprio", ["x", "v"], ["m", "m/s"])
    action_spec = limited(["force"], "N", [-200], [200])
    model: Any
    data: Any

    def __init__(self) -> None:
        self.closed = False
        self.reset(0)

    def reset(self, seed: int) -> None:
        color = "1 0 0" if seed % 2 else "0 0 1"
        self.model = mujoco.MjModel.from_xml_string(SLIDER.format(color=color))
        self.data = mujoco.MjData(self.model)
        self.data.qpos[0] = np.random.default_rng(seed).uniform(-0.1, 0.1)
        mujoco.mj_forward(self.model, self.data)

    def step(self, action: np.ndarray) -> Outcome:
        self.data.ctrl[:] = action
        if action[0] == 99:
            self.data.qvel[0] = np.nan
        mujoco.mj_step(self.model, self.data)
        x = float(self.data.qpos[0])
        return Outcome(x, success=x > 1, stage=int(x > 0.5), over=x < -1)

    def proprio(self) -> np.ndarray:
        return np.array([self.data.qpos[0], self.data.qvel[0]])

    def memory(self) -> np.ndarray:
        return np.array([42.0])

    def expert(self) -> Any:
        raise no_expert("slider/push")

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        del last
        return np.zeros(1)

    def close(self) -> None:
        self.closed = True


def push(force: float) -> np.ndarray:
    return np.array([force], np.float32)


def test_stages_are_kept_and_success_ends_the_episode():
    env = SuiteEnv(Slider(), image_size=0)
    _, info = env.reset(seed=3)
    stages = [info["stage"]]
    terminated = False
    while not terminated:
        _, _, terminated, truncated, info = env.step(push(40))
        stages.append(info["stage"])
        assert not truncated
    assert list(dict.fromkeys(stages)) == ["start", "half way", "success"]
    assert info["success"]
    *_, info = env.step(push(-200))  # an episode may go on a little, and keeps what it reached
    assert info["stage"] == "success"


def test_an_episode_that_is_over_or_too_long_is_truncated():
    env = SuiteEnv(Slider(), image_size=0)
    env.reset(seed=0)
    truncations = [env.step(push(0))[3] for _ in range(60)]
    assert truncations == [False] * 59 + [True]
    _, info = env.reset(seed=0)
    ended = False
    steps = 0
    while not ended:
        _, _, terminated, ended, info = env.step(push(-200))
        steps += 1
        assert not terminated
    assert steps < 60
    assert not info["success"]


def test_a_state_that_mujoco_cannot_go_on_from_ends_the_episode_as_unstable():
    env = SuiteEnv(Slider(), image_size=0)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(push(99))
    assert (terminated, truncated) == (False, True)
    assert info["unstable"]
    assert not info["success"]
    _, info = env.reset(seed=0)
    assert not info["unstable"]


def test_actions_are_cut_to_the_limits_and_refused_unless_finite_numbers():
    env = SuiteEnv(Slider(), image_size=0)
    env.reset(seed=1)
    env.step(push(200))
    at_limit = env.state()
    env.reset(seed=1)
    env.step(push(10_000))
    np.testing.assert_array_equal(env.state(), at_limit)
    for wrong in (push(np.inf), np.zeros(2, np.float32)):
        with pytest.raises(ValueError, match="an action is 1 finite numbers"):
            env.step(wrong)


def test_the_state_is_mujocos_whole_one_and_what_the_suite_remembers():
    env = SuiteEnv(Slider(), image_size=0)
    env.reset(seed=5)
    first = env.state()
    assert first[-1] == 42
    env.step(push(1))
    assert (env.state() != first).any()
    env.reset(seed=5)
    np.testing.assert_array_equal(env.state(), first)


def test_frames_show_the_model_of_this_episode_and_only_to_who_looks():
    env = SuiteEnv(Slider(), image_size=16)
    red = env.reset(seed=1)[0]["images.free"]
    blue = env.reset(seed=2)[0]["images.free"]
    assert red[..., 0].max() > red[..., 2].max()
    assert blue[..., 2].max() > blue[..., 0].max()
    env.observing = False
    assert set(env.step(push(0))[0]) == {"proprio"}
    assert env.render().shape == (256, 256, 3)
    env.close()


def test_closing_closes_the_suite():
    slider = Slider()
    SuiteEnv(slider, image_size=0).close()
    assert slider.closed


def test_seeds_beyond_what_the_suites_take_are_refused():
    env = SuiteEnv(Slider(), image_size=0)
    with pytest.raises(ConfigError, match="seed=2147483648"):
        env.reset(seed=2**31)


def test_a_suite_without_an_expert_names_those_that_have_one():
    with pytest.raises(ConfigError, match=r"slider/push has no scripted expert.*metaworld"):
        SuiteEnv(Slider(), image_size=0).expert()


def test_the_simulator_is_named_with_all_versions():
    simulator = SuiteEnv(Slider(), image_size=0).simulator
    assert simulator == f"mujoco {mujoco.__version__}, slider 0.1"


def test_parts_of_an_observation_are_numbered_where_they_are_several():
    assert numbered({"height": 1, "joint": 2}) == ["height", "joint0", "joint1"]


def test_names_of_no_suite_are_refused_with_the_suites():
    assert suite_of("lift") is None
    with pytest.raises(ConfigError, match=r"of no suite known here: metaworld, robosuite"):
        make_here("nosuite/task", 0)


def test_every_suite_has_its_file():
    folder = Path(catalogue.__file__).parent
    for suite in SUITES.values():
        text = (folder / f"{suite.module}.py").read_text()
        assert "def tasks() -> tuple[str, ...]:" in text
        assert "def make(task: str, image_size: int) -> SuiteEnv:" in text


@given(hnp.arrays(float, 3, elements=st.floats(-1.5, 1.5)))
def test_a_rotation_vector_is_scipys(turn: np.ndarray):
    matrix = Rotation.from_rotvec(turn).as_matrix()
    np.testing.assert_allclose(rotation_vector(matrix), turn, atol=1e-7)
