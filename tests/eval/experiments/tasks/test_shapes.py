"""Moving and bouncing shapes, against a simulation move by move and a painter pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopdit.eval.experiments.tasks.shapes import COLOURS, FRAMES, MOVES, SIZE, ShapesTask, drawn
from loopdit.policy.canvas.modalities import frames_of


def test_moving_shapes_keep_their_velocity_and_never_leave_the_frame():
    scene = ShapesTask(bounce=False).scenes(50, 0, "train")
    moved = np.diff(scene.places, axis=1)
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:, :1], moved.shape), atol=1e-9)
    assert (scene.places >= scene.radius[:, None, :, None] - 1e-9).all()
    assert (scene.places <= SIZE - scene.radius[:, None, :, None] + 1e-9).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_bouncing_shapes_are_where_small_steps_with_reversals_take_them(seed: int):
    scene = ShapesTask(bounce=True).scenes(1, seed, "fast")
    steps = 2000
    for shape in range(scene.places.shape[2]):
        radius = scene.radius[0, shape]
        for axis in range(2):
            at, speed = scene.places[0, 0, shape, axis], scene.velocity[0, shape, axis]
            for move in range(FRAMES * MOVES):
                for _ in range(steps):
                    at += speed / steps
                    if not radius <= at <= SIZE[axis] - radius:
                        speed = -speed
                        at += 2 * speed / steps
                assert at == pytest.approx(scene.places[0, move + 1, shape, axis], abs=0.1)


def test_frames_show_each_shape_where_it_is_and_the_last_in_front():
    scene = ShapesTask().scenes(2, 3, "many")
    frames = drawn(scene)
    for b, f, y, x in np.ndindex(2, FRAMES, 32, 40):
        if (y + x + f) % 7:
            continue  # a seventh of the pixels is enough
        colour = np.full(3, -1.0)
        for shape in range(5):
            away = np.abs(np.array([y, x]) + 0.5 - scene.places[b, f * MOVES, shape])
            distance = (away.max(), np.hypot(*away), away.sum())[scene.kind[b, shape]]
            if abs(distance - scene.radius[b, shape]) < 1e-3:
                break  # the edge itself is a matter of rounding
            if distance < scene.radius[b, shape]:
                colour = COLOURS[scene.colour[b, shape]]
        else:
            np.testing.assert_array_equal(frames[b, f, :, y, x], colour)


def test_the_canvas_says_what_the_scene_is():
    task = ShapesTask(bounce=True)
    scene, canvas = task.scenes(5, 1, "train"), task.canvases(5, 1, "train")
    frames = torch.cat([canvas["frames"], canvas["future_frames"]], dim=1)
    np.testing.assert_array_equal(frames_of(frames, 4, 5).numpy(), drawn(scene))
    # The moves that are commanded lead from place to place.
    actions = torch.cat([canvas["actions"], canvas["future_actions"]], dim=1).numpy()
    agent = scene.places[:, :, 0]
    np.testing.assert_allclose(agent[:, 0] + 1.5 * actions[..., :2].sum(1), agent[:, -1], atol=1e-5)
    np.testing.assert_allclose((actions[..., 2:] + 1) / 2 * SIZE, agent[:, 1:], atol=1e-5)
    away = np.linalg.norm(scene.places[:, (6, 9), 0] - scene.places[:, (6, 9), 1], axis=-1)
    expected = 1 - 2 * away / np.hypot(32, 40)
    np.testing.assert_allclose(canvas["reward"][..., 0].numpy(), expected, atol=1e-5)


def test_each_split_is_out_of_distribution_in_its_own_way_alone():
    task = ShapesTask()
    scenes = {split: task.scenes(200, 0, split) for split in task.splits}
    usual = scenes["train"]
    assert np.abs(scenes["fast"].velocity).max() > 1.6 > 1.5 >= np.abs(usual.velocity).max()
    assert scenes["many"].kind.shape[1] == 5
    assert scenes["large"].radius.min() >= 4.5 >= usual.radius.max()
    assert set(scenes["colour"].colour.ravel()) == {5}
    assert 5 not in usual.colour
    assert np.abs(scenes["colour"].velocity).max() <= 1.5
