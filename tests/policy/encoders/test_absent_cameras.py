import numpy as np
from tests.policy.policies import small_spec

from loopdit.policy.encoders.absent_cameras import AVAILABLE, complete_observation

SPEC = small_spec(cameras=2).with_optional_cameras()
FIRST, SECOND = "images.camera0", "images.camera1"


def observation() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    frames = {n: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for n in (FIRST, SECOND)}
    return {**frames, "proprio": rng.normal(size=3).astype(np.float32)}


def test_an_absent_camera_becomes_a_black_frame_that_is_said_to_be_missing():
    given = observation()
    del given[SECOND]
    SPEC.check_observation(given)
    complete = complete_observation(SPEC, given)
    assert complete[AVAILABLE].tolist() == [True, False]
    assert not complete[SECOND].any()
    assert complete[FIRST] is given[FIRST]
    assert SECOND not in given
    SPEC.check_observation({k: v for k, v in complete.items() if k != AVAILABLE})


def test_with_every_camera_there_the_observation_is_as_it_was_and_all_are_available():
    given = observation()
    complete = complete_observation(SPEC, given)
    assert complete.pop(AVAILABLE).tolist() == [True, True]
    assert complete == given


def test_with_history_a_missing_camera_is_black_at_each_observed_step():
    spec = SPEC.with_history(3)
    given = {name: np.stack([value] * 3) for name, value in observation().items()}
    del given[FIRST]
    complete = complete_observation(spec, given)
    assert complete[FIRST].shape == (3, 16, 16, 3)
    assert complete[AVAILABLE].tolist() == [False, True]


def test_a_policy_that_needs_all_its_cameras_is_given_what_it_always_was():
    assert set(complete_observation(small_spec(cameras=2), observation())) == set(observation())
