# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false
import hashlib
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.cameras import CameraRig
from loopdit.envs.raycast import RayCameras
from loopdit.envs.registry import ENV_NAMES, make_env

SIZE = 64


def both(env: ArmEnv, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """One frame by OpenGL and one by rays, as int."""
    found: list[np.ndarray] = []
    for rig in (CameraRig(env.arm.model), RayCameras(env.arm.model)):
        found.append(rig.frame(env.arm.data, camera, SIZE).astype(int))
        rig.close()
    return found[0], found[1]


def pixels_of_rays(name: str, seed: int) -> str:
    """A digest of the frames of five steps of the expert."""
    env = make_env(name, image_size=32, renderer="ray")
    observation, _ = env.reset(seed=seed)
    digest, expert = hashlib.sha256(), env.expert()
    for _ in range(5):
        observation, *_ = env.step(expert.action())
        digest.update(observation["images.front"].tobytes() + observation["images.wrist"].tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", ENV_NAMES)
@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_rays_see_nearly_what_opengl_sees(name: str, camera: str):
    env = make_env(name)
    env.observing = False
    env.reset(seed=0)
    expert = env.expert()
    for _ in range(9):
        env.step(expert.action())
    opengl, rays = both(env, camera)
    # A highlight that OpenGL spreads over the table's few vertices is most of it.
    assert np.abs(opengl - rays).mean() < 9
    assert (np.abs(opengl - rays).max(axis=-1) > 60).mean() < 0.03


def test_an_object_covers_the_same_pixels():
    env = make_env("lift")
    env.observing = False
    env.reset(seed=0)
    for _ in range(6):
        env.step(env.expert().action())
    for camera in ("front", "wrist"):
        opengl, rays = (frame[..., 0] - frame[..., 2] > 100 for frame in both(env, camera))
        assert rays.sum() > 10
        assert (opengl & rays).sum() / (opengl | rays).sum() > 0.85


@pytest.mark.parametrize("shape", ['type="sphere" size=".1"', 'type="box" size=".1 .1 .05"'])
@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_what_is_behind_a_transparent_geom_shines_through(shape: str, alpha: float):
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><default><geom material="dull"/></default>
        <asset><material name="dull" specular="0"/></asset>
        <worldbody><camera name="above" pos="0 0 1"/>
        <geom type="box" size="1 1 .01" rgba="1 0 0 1"/>
        <body pos="0 0 .1"><geom {shape} rgba="0 1 0 {alpha}"/></body></worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    opengl = CameraRig(model)
    expected = opengl.frame(data, "above", 33)[16, 16].astype(int)
    opengl.close()
    found = RayCameras(model).frame(data, "above", 33)[16, 16].astype(int)
    np.testing.assert_allclose(found, expected, atol=3)


def test_geoms_that_opengl_hides_are_hidden():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><camera name="above" pos="0 0 1"/>
        <geom type="sphere" size=".2" group="4"/></worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert not RayCameras(model).frame(data, "above", 9).any()  # nothing, not even a sky


def test_another_process_casts_the_same_pixels():
    code = "from tests.envs.test_raycast import pixels_of_rays; print(pixels_of_rays('lift', 3))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == pixels_of_rays("lift", 3)
    assert pixels_of_rays("lift", 3) != pixels_of_rays("lift", 4)
