from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datasets.formats.lerobot_sample import sample_export

from loopdit.datasets.formats import lerobot
from loopdit.datasets.formats.convert import convert
from loopdit.datasets.formats.video import can_encode
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.video.clips import (
    CROP,
    PAD,
    STRETCH,
    ClipConfig,
    clip_steps,
    fitted,
    require_whole_clips,
)
from loopdit.errors import ConfigError, StoreError


def checkered(height: int, width: int) -> np.ndarray:
    """(1, H, W, 3): red grows to the right, green downwards, over their whole range."""
    picture = np.zeros((1, height, width, 3), np.uint8)
    picture[0, ..., 0] = np.linspace(0, 255, width)[None].round()
    picture[0, ..., 1] = np.linspace(0, 255, height)[:, None].round()
    picture[0, ..., 2] = 255
    return picture


def test_a_clip_is_the_present_frame_and_those_before_it_and_the_first_stands_for_earlier_ones():
    assert clip_steps(np.array([0, 3, 11]), 9).tolist() == [
        [0] * 9,
        [0, 0, 0, 0, 0, 0, 1, 2, 3],
        [3, 4, 5, 6, 7, 8, 9, 10, 11],
    ]


@pytest.mark.parametrize(("frames", "latent"), [(1, 1), (9, 3), (13, 4), (49, 13)])
def test_four_frames_are_one_latent_frame_after_the_first(frames: int, latent: int):
    assert ClipConfig(frames=frames).latent_frames == latent


@pytest.mark.parametrize(
    ("frames", "use"), [(0, 9), (2, 9), (8, 9), (5, 9), (10, 9), (12, 9), (53, 49), (16, 13)]
)
def test_a_number_of_frames_that_the_autoencoder_cannot_take_is_refused(frames: int, use: int):
    with pytest.raises(ConfigError, match=rf"video.frames={frames} must be 4 k \+ 1.*Use {use}"):
        ClipConfig(frames=frames)


def test_sides_that_are_no_whole_patches_are_refused():
    with pytest.raises(ConfigError, match=r"video\.width=724 must be a multiple of 16"):
        ClipConfig(width=724)


def test_padding_keeps_the_whole_picture_in_its_proportions():
    square = fitted(checkered(256, 256), 480, 720, PAD)[0]
    assert square.shape == (480, 720, 3)
    assert (square[:, :120] == 0).all()
    assert (square[:, 600:] == 0).all()
    # Corners of the original are the corners between the bars, and the middle stays the middle.
    inside = square[:, 120:600].astype(int)
    assert inside[0, 0, :2].max() <= 2
    assert inside[-1, -1, :2].min() >= 253
    assert np.abs(inside[240, 240, :2] - 127).max() <= 2
    # As much to the right as down: proportions are kept.
    assert np.abs(inside[:, 240, 1] - inside[240, :, 0]).max() <= 1


def test_cropping_fills_the_picture_and_cuts_both_edges_alike():
    found = fitted(checkered(480, 640), 480, 720, CROP)[0].astype(int)
    assert (found[..., 2] == 255).all()  # no black
    assert found[240, 0, 0] <= 1
    assert found[240, -1, 0] >= 254
    # 640 to 720 makes 480 to 540: 30 of 540 rows are cut off at the top and at the bottom.
    assert abs(found[0, 0, 1] - 255 * 30 / 540) <= 1
    assert abs(found[-1, 0, 1] - 255 * 510 / 540) <= 1


def test_stretching_fills_the_picture_and_cuts_nothing():
    found = fitted(checkered(256, 256), 480, 720, STRETCH)[0].astype(int)
    assert found[0, 0, :2].max() <= 1
    assert found[-1, -1, :2].min() >= 254
    assert (found[..., 2] == 255).all()


@given(
    height=st.integers(4, 90),
    width=st.integers(4, 90),
    fit=st.sampled_from([PAD, CROP, STRETCH]),
    shade=st.integers(1, 255),
)
def test_a_picture_of_one_colour_keeps_it_whatever_its_size(
    height: int, width: int, fit: str, shade: int
):
    found = fitted(np.full((2, height, width, 3), shade, np.uint8), 32, 48, fit)
    assert found.shape == (2, 32, 48, 3)
    assert set(np.unique(found)) <= ({shade} if fit != PAD else {0, shade})
    assert (found == shade).any()


def test_an_episode_shorter_than_a_clip_is_refused_by_name(store: Path):
    episodes = EpisodeStore.open(store)  # of 5, 1 and 8 steps
    with pytest.raises(StoreError, match=r"video.frames=9: episode_\w+ of .*5 steps.*1 steps"):
        require_whole_clips([DataPart(episodes, range(3))], 9)
    require_whole_clips([DataPart(episodes, [2])], 8)


def test_the_camera_is_the_first_unless_another_is_named(spec: PolicySpec):
    assert ClipConfig().chosen_camera(spec).name == "images.front"
    assert ClipConfig(camera="wrist").chosen_camera(spec).name == "images.wrist"
    with pytest.raises(ConfigError, match=r"video\.camera=top is no camera.*images\.front"):
        ClipConfig(camera="top").chosen_camera(spec)


@pytest.mark.skipif(not can_encode("av1"), reason="PyAV has no AV1 encoder here")
def test_a_clip_of_av1_video_shows_what_was_filmed(tmp_path: Path):
    export = sample_export((12,))
    filmed = next(iter(sample_export((12,)).episodes)).steps["observation.images.front"]
    lerobot.write(tmp_path / "filmed", replace(export, ours={}), codec="av1")
    convert(tmp_path / "filmed", tmp_path / "store")
    kept = EpisodeStore.open(tmp_path / "store")
    clips = ClipConfig(height=64, width=96)  # the film is 64 x 80
    steps = clip_steps(np.array([10]), clips.frames)[0]
    camera = clips.chosen_camera(kept.spec).name
    found = fitted(kept.decode(0, camera, steps.tolist()), 64, 96, clips.fit)
    assert (found[:, :, :8] == 0).all()
    error = found[:, :, 8:88].astype(float) - filmed[2:11]
    assert np.sqrt((error**2).mean()) < 8  # of 255: the codec loses as much
