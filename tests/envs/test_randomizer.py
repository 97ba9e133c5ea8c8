# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false
from collections.abc import Callable

import mujoco
import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env
from loopdit.envs.variation import AXES
from loopdit.errors import ConfigError

Envs = Callable[[str], ArmEnv]
LIGHTS = ("ambient", "diffuse", "specular")
SEEN = ("lights", "textures", "camera")


@pytest.fixture(scope="module")
def envs():
    """`lift` with each variation that a test asks for, made once."""
    made: dict[str, ArmEnv] = {}

    def env(variation: str) -> ArmEnv:
        if variation not in made:
            made[variation] = make_env("lift", image_size=16, variation=variation)
        return made[variation]

    yield env
    for one in made.values():
        one.close()


def arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Every array of a compiled model, copied."""
    found = {name: getattr(model, name, None) for name in dir(model) if name[0] != "_"}
    found |= {f"headlight.{name}": getattr(model.vis.headlight, name) for name in LIGHTS}
    return {name: array.copy() for name, array in found.items() if isinstance(array, np.ndarray)}


def differing(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> set[str]:
    return {name for name in a if not np.array_equal(a[name], b[name])}


def episode(env: ArmEnv, seed: int) -> np.ndarray:
    """The state after ten steps of the expert."""
    env.observing = False
    env.reset(seed=seed)
    expert = env.expert()
    for _ in range(10):
        env.step(expert.action())
    env.observing = True
    return env.state()


@pytest.mark.parametrize("axis", [*AXES, "all"])
def test_the_task_places_its_objects_the_same_with_and_without_variation(envs: Envs, axis: str):
    nominal, varied = envs("none"), envs(axis)
    for seed in range(10):
        nominal.reset(seed=seed)
        varied.reset(seed=seed)
        assert nominal.np_random.bit_generator.state == varied.np_random.bit_generator.state
        cube, same_cube = nominal.arm.body_position("red"), varied.arm.body_position("red")
        np.testing.assert_allclose(same_cube, cube, atol=1e-4)
        np.testing.assert_array_equal(varied.arm.reference_position, nominal.arm.reference_position)


@pytest.mark.parametrize("axis", SEEN)
def test_what_is_only_seen_leaves_states_the_same_to_the_bit(envs: Envs, axis: str):
    for seed in range(3):
        np.testing.assert_array_equal(episode(envs(axis), seed), episode(envs("none"), seed))


@pytest.mark.parametrize("axis", ["friction", "mass"])
def test_dynamics_make_another_episode_of_the_same_start(envs: Envs, axis: str):
    assert not np.array_equal(episode(envs(axis), 0), episode(envs("none"), 0))


@pytest.mark.parametrize("axis", [*SEEN, "distractors"])
def test_what_is_seen_differs_from_nominal_and_between_episodes(envs: Envs, axis: str):
    varied, nominal = envs(axis), envs("none")
    frames = [varied.reset(seed=seed)[0]["images.front"].astype(int) for seed in (0, 1)]
    plain = nominal.reset(seed=0)[0]["images.front"].astype(int)
    assert np.abs(frames[0] - plain).mean() > 1
    assert np.abs(frames[0] - frames[1]).mean() > 1


def test_the_same_seed_draws_the_same_whatever_came_before(envs: Envs):
    env = envs("all")
    model = env.arm.model

    def after(*seeds: int) -> tuple[str, dict[str, np.ndarray], bytes, bytes]:
        observation = [env.reset(seed=seed)[0] for seed in seeds][-1]
        frames = observation["images.front"].tobytes() + observation["images.wrist"].tobytes()
        return env.variation, arrays(model), frames, env.state().tobytes()

    words, model_then, frames, state = after(4)
    for history in ((5, 4), (0, 1, 2, 3, 4), (4, 4)):
        again, model_now, frames_now, state_now = after(*history)
        assert again == words
        assert not differing(model_then, model_now)
        assert (frames_now, state_now) == (frames, state)
    assert after(5)[0] != words


def test_fifty_episodes_leave_the_nominal_model_as_it_was_compiled(envs: Envs):
    env = envs("all")
    untouched = make_env("lift", image_size=16, variation="all").arm.model
    for seed in range(50):
        env.reset(seed=seed)
    assert len(differing(arrays(untouched), arrays(env.arm.model))) > 10
    env._randomizer.restore()  # pyright: ignore[reportPrivateUsage] - what a reset does first
    assert not differing(arrays(untouched), arrays(env.arm.model))
    assert env.arm.model.stat.meaninertia == untouched.stat.meaninertia


def test_an_axis_draws_the_same_alone_and_with_others(envs: Envs):
    def drawn(env: ArmEnv) -> dict[str, str]:
        env.reset(seed=6)
        return dict(part.split(": ", 1) for part in env.variation.split("; "))

    together = drawn(envs("all"))
    assert list(together) == list(AXES)
    for axis in AXES:
        assert drawn(envs(axis)) == {axis: together[axis]}


def test_a_reset_without_a_seed_draws_the_next_episode(envs: Envs):
    env = envs("lights")

    def three() -> list[str]:
        env.reset(seed=9)
        words = [env.variation]
        for _ in range(2):
            env.reset()
            words.append(env.variation)
        return words

    words = three()
    assert len(set(words)) == 3
    assert three() == words


def test_less_strength_stays_nearer_to_nominal(envs: Envs):
    nominal = arrays(envs("none").arm.model)

    def far(variation: str, field: str) -> float:
        env, total = envs(variation), 0.0
        for seed in range(10):
            env.reset(seed=seed)
            now = arrays(env.arm.model)[field]
            total += np.abs(now - nominal[field]).max()
        return total

    for axis, field in (
        ("lights", "light_pos"),
        ("camera", "cam_pos"),
        ("friction", "geom_friction"),
        ("mass", "body_mass"),
    ):
        assert 0 < far(f"{axis}:0.1", field) < 0.3 * far(axis, field)


def test_constraints_go_by_the_varied_masses(envs: Envs):
    """What mj_setConst derives is what a compiler finds for the same masses: left stale, physics
    breaks."""
    env = envs("mass")
    env.reset(seed=3)
    model = env.arm.model
    cube = model.body("red").id
    free = 1 / model.body_mass[cube]  # the translational inverse weight of a free body
    assert model.body_invweight0[cube, 0] == pytest.approx(free)
    assert model.body_subtreemass[cube] == model.body_mass[cube]
    assert model.body_mass[cube] != pytest.approx(0.04)


@pytest.mark.parametrize("corner", range(4))
def test_varied_cameras_keep_the_workplace_in_view(envs: Envs, corner: int):
    """Where tasks put things, from 100 episodes' front cameras, by the pinhole equation."""
    env = envs("camera")
    env.observing = False
    distance, azimuth = [(0.20, -0.55), (0.20, 0.55), (0.38, -0.55), (0.38, 0.55)][corner]
    point = np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), 0.02])
    for seed in range(100):
        env.reset(seed=seed)
        camera = env.arm.data.camera("front")
        x, y, z = camera.xmat.reshape(3, 3).T @ (point - camera.xpos)
        half = np.tan(np.radians(env.arm.model.camera("front").fovy[0]) / 2)
        assert max(abs(x), abs(y)) < -z * half, seed
    env.observing = True


def test_the_expert_lifts_under_every_axis_at_once(envs: Envs):
    env = envs("all")
    env.observing = False
    lifted = 0
    for seed in range(40):
        env.reset(seed=seed)
        expert, terminated, truncated = env.expert(), False, False
        while not (terminated or truncated):
            *_, terminated, truncated, info = env.step(expert.action())
            assert not info["unstable"]
        lifted += terminated
    env.observing = True
    assert lifted >= 38


def test_without_variation_the_scene_is_the_nominal_one(envs: Envs):
    env = envs("none")
    names = {env.arm.model.geom(geom).name for geom in range(env.arm.model.ngeom)}
    assert not any(name.startswith(("wall", "distractor")) for name in names)
    assert env.arm.model.ntex == 1
    env.reset(seed=0)
    assert env.variation == "none"


def test_an_unknown_axis_is_refused():
    with pytest.raises(ConfigError, match="no axis 'gravity'"):
        make_env("lift", variation="gravity")
