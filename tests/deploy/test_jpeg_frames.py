import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.deploy.jpeg_frames import checked, decoded, encoded
from loopdit.deploy.messages import ErrorCode, WireError

SPEC = PolicySpec(
    observations=(
        TensorSpec("images.front", (32, 48, 3), "uint8"),
        TensorSpec("images.wrist", (16, 24, 3), "uint8"),
        TensorSpec("proprio", (2,), "float32"),
    ),
    action=TensorSpec("action", (2,), "float32"),
    action_frame="base of the robot",
    control_period_s=0.1,
)
HEADER = b"\xff\xc0"  # of a baseline JPEG: height and width follow 3 bytes later


def smooth(height: int, width: int, phase: float = 0.0) -> np.ndarray:
    """A picture that JPEG changes little: (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([128 + 100 * np.sin(3 * v + phase) for v in (x, y, x + y)], -1).astype(np.uint8)


def observed() -> dict[str, np.ndarray]:
    return {
        "images.front": smooth(32, 48),
        "images.wrist": smooth(16, 24, 1.0),
        "proprio": np.ones(2, np.float32),
    }


def jpeg(picture: np.ndarray, **options: object) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", **options)
    return np.frombuffer(out.getvalue(), np.uint8)


def says_its_size_is(width: int, height: int) -> np.ndarray:
    honest = bytearray(jpeg(smooth(32, 48)).tobytes())
    at = honest.index(HEADER) + 5
    honest[at : at + 4] = struct.pack(">HH", height, width)
    return np.frombuffer(bytes(honest), np.uint8)


def scanned(times: int) -> np.ndarray:
    """Whose last scan comes so many times: each is gone through again."""
    progressive = jpeg(smooth(32, 48), progressive=True).tobytes()
    start = progressive.rindex(b"\xff\xda")
    return np.frombuffer(
        progressive[:start] + times * progressive[start:-2] + b"\xff\xd9", np.uint8
    )


def refusal(front: np.ndarray, names: tuple[str, ...] = ("images.front",)) -> WireError:
    with pytest.raises(WireError) as caught:
        checked(observed() | {"images.front": front}, names, SPEC)
    return caught.value


def test_frames_come_out_as_another_decoder_sees_them():
    sent, names = encoded(observed(), SPEC, quality=90)
    assert names == ("images.front", "images.wrist")
    assert sent["proprio"] is not None
    kept, _ = checked(sent, names, SPEC)
    seen = decoded(kept, names, SPEC)
    SPEC.check_observation(seen)
    for name in names:
        with Image.open(io.BytesIO(sent[name].tobytes())) as picture:
            np.testing.assert_array_equal(seen[name], np.asarray(picture))
        assert np.abs(seen[name].astype(int) - observed()[name]).mean() < 3


def test_a_history_is_one_picture_with_the_oldest_frame_on_top():
    spec = SPEC.with_history(3)
    frames = {
        "images.front": np.stack([smooth(32, 48, phase) for phase in (0.0, 1.0, 2.0)]),
        "images.wrist": np.stack([smooth(16, 24, phase) for phase in (0.0, 1.0, 2.0)]),
        "proprio": np.ones((3, 2), np.float32),
    }
    sent, names = encoded(frames, spec, quality=95)
    with Image.open(io.BytesIO(sent["images.front"].tobytes())) as picture:
        assert picture.size == (48, 3 * 32)
    seen = decoded(checked(sent, names, spec)[0], names, spec)
    for made, true in zip(seen["images.front"], frames["images.front"], strict=True):
        assert np.abs(made.astype(int) - true).mean() < 3


def test_a_camera_that_is_absent_is_not_encoded():
    alone = {k: v for k, v in observed().items() if k != "images.wrist"}
    assert encoded(alone, SPEC.with_optional_cameras(), 90)[1] == ("images.front",)


@pytest.mark.parametrize(
    ("front", "code", "words"),
    [
        (says_its_size_is(60_000, 60_000), ErrorCode.SHAPE, "60000 x 60000"),
        (says_its_size_is(48, 31), ErrorCode.SHAPE, "48 x 31, RGB; the policy takes 48 x 32"),
        (jpeg(smooth(32, 48)[:, :, 0]), ErrorCode.SHAPE, "48 x 32, L;"),
        (scanned(5_000), ErrorCode.TOO_BIG, "more than the frame"),
        (scanned(200), ErrorCode.MALFORMED, "more than 16 scans"),
        (np.zeros(400, np.uint8), ErrorCode.MALFORMED, "no whole JPEG"),
        (np.zeros(0, np.uint8), ErrorCode.MALFORMED, "no whole JPEG"),
        (jpeg(smooth(32, 48))[:100], ErrorCode.MALFORMED, "no whole JPEG"),
        (np.zeros((400, 1), np.uint8), ErrorCode.SHAPE, "uint8 (n,)"),
        (np.zeros(400, np.float32), ErrorCode.SHAPE, "uint8 (n,)"),
    ],
)
def test_what_a_header_says_is_judged_before_anything_is_decoded(
    front: np.ndarray, code: str, words: str
):
    fault = refusal(front)
    assert fault.code == code
    assert words in str(fault)


@pytest.mark.parametrize("name", ["proprio", "images.top", ""])
def test_only_cameras_may_be_jpegs(name: str):
    assert refusal(jpeg(smooth(32, 48)), (name,)).code == ErrorCode.UNKNOWN


def test_a_picture_that_is_cut_short_is_refused_rather_than_completed():
    short = jpeg(np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8))[:-200]
    kept, _ = checked(observed() | {"images.front": short}, ("images.front",), SPEC)
    with pytest.raises(WireError, match=r"images\.front is no whole JPEG") as caught:
        decoded(kept, ("images.front",), SPEC)
    assert caught.value.code == ErrorCode.MALFORMED


def test_what_was_checked_cannot_be_changed_by_its_sender_any_more():
    mine = bytearray(jpeg(smooth(32, 48)).tobytes())
    shared = np.frombuffer(memoryview(mine), np.uint8)
    kept, _ = checked(observed() | {"images.front": shared}, ("images.front",), SPEC)
    mine[:] = says_its_size_is(60_000, 60_000).tobytes()[: len(mine)]
    assert decoded(kept, ("images.front",), SPEC)["images.front"].shape == (32, 48, 3)


@given(data=st.data())
def test_a_damaged_picture_is_decoded_to_its_size_or_refused(data: st.DataObject):
    damaged = jpeg(smooth(32, 48)).copy()
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        kept, shown = checked(observed() | {"images.front": damaged}, ("images.front",), SPEC)
        seen = decoded(kept, ("images.front",), SPEC)
    except WireError:
        return
    SPEC.check_observation(shown)
    SPEC.check_observation(seen)
