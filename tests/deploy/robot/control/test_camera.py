"""OpenCV itself, on a video file in place of a device."""

from pathlib import Path

import numpy as np
import pytest

from loopdit.deploy.robot.control.camera import Camera
from loopdit.errors import ServerError

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def video(tmp_path: Path) -> str:
    """60 frames 48 high and 96 wide: red in the middle, blue at both sides."""
    path = str(tmp_path / "video.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 30, (96, 48))
    frame = np.zeros((48, 96, 3), np.uint8)
    frame[:, :24, 0] = frame[:, 72:, 0] = 255
    frame[:, 24:72, 2] = 255
    for _ in range(60):
        writer.write(frame)
    writer.release()
    return path


def test_a_frame_is_the_middle_in_rgb_at_the_size_that_is_wanted(video: str):
    with Camera(video, (16, 16)) as camera:
        frame = camera.frame()
        assert frame.shape == (16, 16, 3)
        assert frame.dtype == np.uint8
        np.testing.assert_allclose(frame[2:-2, 2:-2].mean((0, 1)), [254, 0, 0], atol=4)
        assert camera.captured >= 1


def test_a_camera_that_has_ended_is_an_error_and_not_an_old_picture(video: str):
    with Camera(video, (8, 8)) as camera:
        camera.frame()
        camera._thread.join(10)  # pyright: ignore[reportPrivateUsage] - the end of the file
        camera._came_s -= 2.0  # pyright: ignore[reportPrivateUsage] - two seconds later
        with pytest.raises(ServerError, match="sends no frames any more"):
            camera.frame()


def test_a_camera_that_is_not_there_says_what_to_look_at(tmp_path: Path):
    with pytest.raises(ServerError, match=r"cannot be opened.*group video"):
        Camera(str(tmp_path / "nothing.avi"), (8, 8))
