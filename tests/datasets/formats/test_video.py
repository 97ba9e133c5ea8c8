import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.formats.lerobot_v21_files import write_mp4

from loopdit.datasets.formats.video import VideoEncoder, can_encode, read_frames
from loopdit.errors import StoreError

CODECS = [codec for codec in ("av1", "h264") if can_encode(codec)]


def grey_frames(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frame i is of the grey level 6 i: what comes back tells which frame it was."""
    levels = (6 * np.arange(count) % 252).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def numbers_of(frames: np.ndarray) -> list[int]:
    return np.round(frames.mean(axis=(1, 2, 3)) / 6).astype(int).tolist()


def encode(path: Path, frames: np.ndarray, codec: str = "h264", rate: float = 10) -> VideoEncoder:
    encoder = VideoEncoder(path, codec, Fraction(rate).limit_denominator(1001))
    encoder.add(frames)
    encoder.close()
    return encoder


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rate", [10, 12.5, 30, 30000 / 1001])
def test_every_frame_of_a_stretch_comes_back_once_and_in_order(
    tmp_path: Path, codec: str, rate: float
):
    encode(tmp_path / "a.mp4", grey_frames(40), codec, rate)
    whole = read_frames(tmp_path / "a.mp4", "here", 40, rate)
    assert whole.shape == (40, 64, 96, 3)
    assert whole.dtype == np.uint8
    assert numbers_of(whole) == list(range(40))
    for start, count in ((0, 5), (7, 12), (33, 7), (39, 1)):
        stretch = read_frames(
            tmp_path / "a.mp4", "here", count, rate, start / rate, (start + count) / rate
        )
        assert numbers_of(stretch) == list(range(start, start + count))


def test_a_stretch_is_found_where_key_frames_are_far_apart(tmp_path: Path):
    write_mp4(tmp_path / "a.mp4", grey_frames(40), group=25)
    stretch = read_frames(tmp_path / "a.mp4", "here", 4, 10, 2.3, 2.7)
    assert numbers_of(stretch) == [23, 24, 25, 26]


def test_times_may_be_off_by_less_than_half_a_frame(tmp_path: Path):
    encode(tmp_path / "a.mp4", grey_frames(40))
    stretch = read_frames(tmp_path / "a.mp4", "here", 5, 10, 1.04, 1.54)
    assert numbers_of(stretch) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("count", [39, 41])
def test_another_number_of_frames_than_steps_is_refused(tmp_path: Path, count: int):
    encode(tmp_path / "a.mp4", grey_frames(40))
    with pytest.raises(StoreError, match=rf"episode 3.*a\.mp4 has 40 frames.*of {count} steps"):
        read_frames(tmp_path / "a.mp4", "episode 3", count, 10)


@pytest.mark.parametrize("kept", [0, 100, 0.6])
def test_a_truncated_video_is_refused_by_name(tmp_path: Path, kept: float):
    file = tmp_path / "a.mp4"
    random = np.random.default_rng(0).integers(0, 256, (40, 64, 96, 3), dtype=np.uint8)
    encode(file, random)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(StoreError, match=r"episode 3: .*a\.mp4"):
        read_frames(file, "episode 3", 40, 10)


def test_a_missing_video_is_refused_by_name(tmp_path: Path):
    with pytest.raises(StoreError, match=r"episode 3: there is no video .*a\.mp4"):
        read_frames(tmp_path / "a.mp4", "episode 3", 40, 10)


def test_a_file_without_pictures_is_refused(tmp_path: Path):
    (tmp_path / "a.mp4").write_text("not a video at all\n" * 100)
    with pytest.raises(StoreError, match="cannot be decoded"):
        read_frames(tmp_path / "a.mp4", "episode 3", 40, 10)


def test_a_stretch_behind_the_end_is_refused(tmp_path: Path):
    encode(tmp_path / "a.mp4", grey_frames(40))
    with pytest.raises(StoreError, match="has 0 frames from 9"):
        read_frames(tmp_path / "a.mp4", "episode 3", 5, 10, 9.0, 9.5)


@pytest.mark.parametrize("codec", CODECS)
def test_the_told_fidelity_is_that_of_the_frames_that_come_back(tmp_path: Path, codec: str):
    frames = grey_frames(12)
    frames[:, 10:40, 20:50] = np.random.default_rng(0).integers(0, 256, (12, 30, 30, 3))
    encoder = encode(tmp_path / "a.mp4", frames, codec)
    decoded = read_frames(tmp_path / "a.mp4", "here", 12, 10)
    error = ((decoded.astype(float) - frames) ** 2).mean()
    assert encoder.psnr() == pytest.approx(10 * np.log10(255**2 / error))


@pytest.mark.skipif(not can_encode("av1"), reason="PyAV has no AV1 encoder")
def test_av1_holds_frames_of_odd_and_tiny_sizes(tmp_path: Path):
    for height, width in ((33, 47), (16, 16)):
        file = tmp_path / f"{height}.mp4"
        encode(file, grey_frames(6, height, width), "av1")
        back = read_frames(file, "here", 6, 10)
        assert back.shape == (6, height, width, 3)
        assert numbers_of(back) == list(range(6))


def test_frames_added_in_several_calls_follow_one_another(tmp_path: Path):
    encoder = VideoEncoder(tmp_path / "a.mp4", "h264", Fraction(10))
    encoder.add(grey_frames(9)[:4])
    encoder.add(grey_frames(9)[4:])
    assert encoder.frames == 9
    encoder.close()
    assert numbers_of(read_frames(tmp_path / "a.mp4", "here", 9, 10)) == list(range(9))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux only")
@pytest.mark.parametrize("codec", CODECS)
def test_encoding_leaves_the_process_and_its_threads_at_the_priority_they_had(
    tmp_path: Path, codec: str
):
    def threads() -> set[int]:
        return {int(name) for name in os.listdir("/proc/self/task")}

    before, others = (os.sched_getscheduler(0), os.sched_getparam(0)), threads()
    encoder = VideoEncoder(tmp_path / "a.mp4", codec, Fraction(10))
    encoder.add(grey_frames(8))
    begun = threads() - others
    found = [(os.sched_getscheduler(thread), os.sched_getparam(thread)) for thread in begun]
    encoder.close()
    assert (os.sched_getscheduler(0), os.sched_getparam(0)) == before
    assert set(found) == {before}
