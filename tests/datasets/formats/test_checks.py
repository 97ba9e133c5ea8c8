"""Bad episodes are refused by file, episode and key before anything of them is stored."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datasets.formats.rlds_episodes import foreign_episode

from loopdit.datasets.formats.checks import black_cameras, checked_frames, checked_steps
from loopdit.datasets.formats.foreign import ForeignEpisode
from loopdit.datasets.formats.layout import Layout, lay_out, step_shapes
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.errors import StoreError

MAPPING = DataMapping(
    cameras={"front": ("observation/front",), "wrist": ("observation/wrist",)},
    proprio=(VectorPart(("observation/state",)),),
    action=(VectorPart(("action",)),),
    action_frame="base",
)


@pytest.fixture
def layout() -> Layout:
    return lay_out(MAPPING, step_shapes(foreign_episode(0)), "first")


def with_value(key: str, index: tuple[int, int], value: float) -> ForeignEpisode:
    episode = foreign_episode(1)
    changed = episode.steps[key].copy()
    changed[index] = value
    return replace(episode, steps={**episode.steps, key: changed})


def test_a_good_episode_passes_unchanged(layout: Layout):
    episode = foreign_episode(1, length=7)
    assert checked_steps(layout, episode).steps == episode.steps


@pytest.mark.parametrize(
    ("episode", "complaint"),
    [
        (with_value("action", (2, 3), np.nan), r"'action' is nan at step 2, element 3"),
        (with_value("observation/state", (0, 1), np.inf), r"state' is inf at step 0, element 1"),
        (
            foreign_episode(1, observation__wrist=np.zeros((3, 6, 8, 3), np.uint8)),
            r"'observation/wrist' has 3 steps, 'action' has 4",
        ),
        (foreign_episode(1, length=0), r"has no steps: 'action' is empty"),
        (
            foreign_episode(1, action=np.zeros((4, 5), np.float32)),
            r"'action' has shape \(5,\) at each step, the data set's first episode \(4,\)",
        ),
        (
            foreign_episode(1, observation__front=np.zeros((4, 6, 9, 3), np.uint8)),
            r"front' has shape \(6, 9, 3\) at each step, the data set's first episode \(6, 8, 3\)",
        ),
        (
            foreign_episode(1, observation__front=np.zeros((4, 3, 6, 8), np.uint8)),
            r"the frames 'observation/front' have shape \(4, 3, 6, 8\), channels first",
        ),
        (
            foreign_episode(1, observation__front=np.zeros((4, 6, 8, 4), np.uint8)),
            r"have shape \(4, 6, 8, 4\), 4 channels where RGB frames",
        ),
        (
            foreign_episode(1, observation__front=np.zeros((4, 6, 8), np.uint8)),
            r"have shape \(4, 6, 8\), 3 axes where RGB frames",
        ),
        (
            foreign_episode(1, observation__front=np.full((4, 6, 8, 3), 1.5)),
            r"'observation/front' are floats from 1.5 to 1.5, outside \[0, 1\]",
        ),
        (
            foreign_episode(1, observation__front=np.full((4, 6, 8, 3), np.nan)),
            r"are floats from nan to nan, outside \[0, 1\]",
        ),
        (
            foreign_episode(1, observation__front=np.zeros((4, 6, 8, 3), np.int32)),
            r"are int32; uint8, or floats in \[0, 1\], are needed",
        ),
        (
            foreign_episode(1, action=np.zeros((4, 4), complex)),
            r"'action' is complex128, not numbers",
        ),
    ],
)
def test_a_bad_episode_is_named_with_its_key(
    layout: Layout, episode: ForeignEpisode, complaint: str
):
    with pytest.raises(StoreError, match=rf"^episode 1.*{complaint}"):
        checked_steps(layout, episode)


def test_an_episode_without_a_camera_that_the_first_one_had_is_refused(layout: Layout):
    episode = foreign_episode(1)
    steps = {key: value for key, value in episode.steps.items() if key != "observation/wrist"}
    with pytest.raises(StoreError, match=r"episode 1 lacks 'observation/wrist', which the data"):
        checked_steps(layout, replace(episode, steps=steps))


@given(st.integers(0, 255), st.sampled_from(["float32", "float64", "float16"]))
def test_float_frames_in_range_give_the_nearest_of_256_levels(level: int, dtype: str):
    frames = np.full((1, 2, 2, 3), level / 255, dtype)
    checked = checked_frames(frames, "key", "here")
    assert checked.dtype == np.uint8
    assert (checked == level).all()


def test_a_camera_is_black_where_no_pixel_of_the_episode_is_lit():
    dark = np.zeros((4, 6, 8, 3), np.uint8)
    one_pixel = dark.copy()
    one_pixel[3, 0, 0, 1] = 1
    episode = foreign_episode(0, observation__front=dark, observation__wrist=one_pixel)
    cameras = {"front": "observation/front", "wrist": "observation/wrist"}
    assert black_cameras(cameras, episode) == ["front"]
