from pathlib import Path

import av
import numpy as np

from loopdit.eval.reporting.video import last_picture, picture, require_encoder, write_mp4


def moving_square(length: int) -> list[np.ndarray]:
    frames = np.zeros((length, 64, 96, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[16:48, 2 * i : 2 * i + 16] = [220, 40, 30]
    return list(frames)


def test_video_has_the_pictures_at_the_robots_speed(tmp_path: Path):
    require_encoder()
    pictures = moving_square(20)
    write_mp4(tmp_path / "videos" / "a.mp4", pictures, period_s=0.1)
    with av.open(str(tmp_path / "videos" / "a.mp4")) as container:
        assert container.duration == 2 * av.time_base
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == 20
    for original, found in zip(pictures, decoded, strict=True):
        assert np.abs(original.astype(int) - found).mean() < 6


def test_video_is_what_every_browser_plays_and_starts_at_once(tmp_path: Path):
    path = tmp_path / "a.mp4"
    write_mp4(path, moving_square(3), period_s=0.1)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    profile = content[content.index(b"avcC") + 5]
    assert profile <= 100  # Baseline 66, Main 77, High 100; above are 10-bit and 4:4:4


def test_how_a_video_ends_can_be_shown_before_it_plays(tmp_path: Path):
    frames = moving_square(12)
    write_mp4(tmp_path / "a.mp4", frames, period_s=0.1)
    jpeg = last_picture(tmp_path / "a.mp4")
    assert jpeg is not None
    (tmp_path / "last.jpg").write_bytes(jpeg)
    with av.open(str(tmp_path / "last.jpg")) as container:
        found = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(found.astype(int) - frames[-1]).mean() < 6
    (tmp_path / "b.mp4").write_bytes(b"not a film")
    assert last_picture(tmp_path / "b.mp4") is None


def test_picture_puts_the_policys_frames_beside_the_scene_without_smoothing():
    scene = np.full((256, 256, 3), 7, np.uint8)
    front = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    wrist = np.full((64, 64, 3), 200, np.uint8)
    shown = picture(scene, [front, wrist])
    assert shown.shape == (256, 384, 3)
    assert (shown[:, :256] == 7).all()
    np.testing.assert_array_equal(shown[:128:2, 256::2], front)
    assert (shown[128:, 256:] == 200).all()


def test_picture_of_odd_sizes_is_one_that_the_encoder_takes():
    frame = np.zeros((50, 50, 3), np.uint8)
    height, width, _ = picture(np.zeros((256, 256, 3), np.uint8), [frame] * 3).shape
    assert (height % 2, width % 2) == (0, 0)
