from typing import Any

import numpy as np
import pytest
from tests.policy.policies import small_spec

from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.deploy.serving.observation_check import check_observation

FRAME = np.zeros((16, 16, 3), np.uint8)
PROPRIO = np.zeros(3, np.float32)


def test_actions_in_flight_with_a_hole_are_malformed():
    spec = small_spec().with_committed(2)
    committed = np.array([[0, 0, 0], [0.5, 0.5, 1]], np.float32)
    observation = {"images.camera0": FRAME, "proprio": PROPRIO, "committed": committed}
    with pytest.raises(WireError, match="no action in row 0 and one in row 1") as caught:
        check_observation(spec, observation)
    assert caught.value.code is ErrorCode.MALFORMED


@pytest.mark.parametrize(
    ("observation", "code"),
    [
        ({"images.camera0": FRAME, "proprio": PROPRIO[:2]}, ErrorCode.SHAPE),
        ({"images.camera1": FRAME.astype(np.float32), "proprio": PROPRIO}, ErrorCode.DTYPE),
        ({"images.camera1": FRAME, "proprio": PROPRIO * np.nan}, ErrorCode.NONFINITE),
        ({"proprio": PROPRIO}, ErrorCode.UNKNOWN),
        ({"images.camera0": FRAME}, ErrorCode.UNKNOWN),
        ({"images.camera2": FRAME, "proprio": PROPRIO}, ErrorCode.UNKNOWN),
    ],
)
def test_a_robot_that_lacks_a_camera_is_told_what_else_is_wrong(
    observation: dict[str, Any], code: ErrorCode
):
    spec = small_spec(cameras=2).with_optional_cameras()
    with pytest.raises(WireError) as caught:
        check_observation(spec, observation)
    assert caught.value.code is code
