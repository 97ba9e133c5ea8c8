# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false
import mujoco
import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.distractors import PREFIX, KeptFree, task_geoms
from loopdit.envs.registry import ENV_NAMES, make_env

HOLD = np.array([0, 0, 0, 0, 0, 0, 1], dtype=np.float32)


@pytest.fixture(scope="module", params=ENV_NAMES)
def env(request: pytest.FixtureRequest):
    env = make_env(request.param, image_size=16, variation="distractors")
    env.observing = False
    yield env
    env.close()


def on_table(env: ArmEnv) -> list[str]:
    model = env.arm.model
    names = [model.body(body).name for body in range(model.nbody)]
    return [n for n in names if n.startswith(PREFIX) and env.arm.body_position(n)[2] > -0.5]


def parts(env: ArmEnv, name: str) -> list[int]:
    body = env.arm.model.body(name)
    return list(range(body.geomadr[0], body.geomadr[0] + body.geomnum[0]))


def test_one_to_four_lie_on_the_table_and_are_named(env: ArmEnv):
    counts: list[int] = []
    for seed in range(30):
        env.reset(seed=seed)
        names = on_table(env)
        counts.append(len(names))
        assert 0 <= len(names) <= 4
        listed = env.variation.removeprefix("distractors: ")
        assert {PREFIX + name for name in listed.split(", ")} == set(names) or not names
        for name in names:
            assert abs(env.arm.body_position(name)[2]) < 0.004
    assert np.mean(counts) > 1.5
    assert len(set(counts)) > 2


def test_they_touch_nothing_but_the_table_at_the_start(env: ArmEnv):
    model, data = env.arm.model, env.arm.data
    for seed in range(30):
        env.reset(seed=seed)
        theirs = {geom for name in on_table(env) for geom in parts(env, name)}
        table = model.geom("table").id
        for pair in data.contact.geom.tolist():
            if theirs & set(pair):
                assert table in pair
        assert all(env.arm.still(name) for name in on_table(env))


def test_they_leave_room_around_everything_of_the_task(env: ArmEnv):
    """Centre to centre: at least both sizes, and a finger between."""
    model, data = env.arm.model, env.arm.data
    for seed in range(30):
        env.reset(seed=seed)
        small = [geom for geom in task_geoms(model) if model.geom_rbound[geom] < 0.04]
        for name in on_table(env):
            spot = env.arm.body_position(name)[:2]
            for geom in small:
                assert np.linalg.norm(data.geom_xpos[geom, :2] - spot) > 0.055, (seed, name)


def test_none_has_a_colour_of_the_task(env: ArmEnv):
    model = env.arm.model
    own = model.geom_rgba[task_geoms(model), :3]
    for seed in range(10):
        env.reset(seed=seed)
        for name in on_table(env):
            for geom in parts(env, name):
                assert np.linalg.norm(own - model.geom_rgba[geom, :3], axis=1).min() > 0.4


def test_those_not_chosen_neither_fall_nor_touch(env: ArmEnv):
    env.reset(seed=0)
    model = env.arm.model
    stored = [
        model.body(body).name
        for body in range(model.nbody)
        if model.body(body).name.startswith(PREFIX) and model.body(body).name not in on_table(env)
    ]
    assert len(stored) >= 2
    for _ in range(20):
        env.step(HOLD)
    for name in stored:
        np.testing.assert_allclose(env.arm.body_position(name), [0, 0, -1], atol=1e-6)


def test_they_collide_and_come_back_from_storage_colliding():
    env = make_env("lift", image_size=16, variation="distractors")
    env.observing = False
    for seed in range(6):
        env.reset(seed=seed)
        for index, name in enumerate(on_table(env)):
            geoms = parts(env, name)
            assert (env.arm.model.geom_contype[geoms] == 1).all()
            env.arm.place(name, np.array([0.1 * index, 0.4, 0.1]), 0.0)
            env.arm.settle(0.4)
            assert 0 <= env.arm.body_position(name)[2] + 0.002 < 0.02  # on the table, not through
    env.close()


def test_no_camera_line_to_an_object_is_blocked():
    """From the front camera, by MuJoCo's own rays: the cube's middle is seen in every episode."""
    env = make_env("lift", image_size=16, variation="distractors")
    env.observing = False
    model, data = env.arm.model, env.arm.data
    for seed in range(60):
        env.reset(seed=seed)
        eye = data.camera("front").xpos.copy()
        way = env.arm.body_position("red") - eye
        hit = np.array([-1], np.int32)
        mujoco.mj_ray(model, data, eye, way, None, 1, -1, hit, None)
        assert not model.body(model.geom_bodyid[hit[0]]).name.startswith(PREFIX)
    env.close()


def test_where_there_is_no_room_there_is_none():
    kept = KeptFree()
    kept.add(np.array([-1.0, -1.0]), np.array([1.0, 1.0]), 0.0)
    spots = np.array([[0.3, 0.0], [1.005, 0.0], [1.015, 0.0]])
    assert kept.admits(spots, radius=0.01).tolist() == [False, False, True]


def test_a_sweep_keeps_its_whole_way_free():
    kept = KeptFree()
    kept.add_sweep(np.zeros(2), np.zeros(2), np.array([0.3, 0.3]), 0.05)
    way = np.linspace(0, 1, 25)[:, None] * np.array([0.3, 0.3])
    assert not kept.admits(way + np.array([0.02, -0.02]), 0.02).any()
    assert kept.admits(way + np.array([0.06, -0.06]), 0.02).all()
