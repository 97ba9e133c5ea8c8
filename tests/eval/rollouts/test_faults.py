from dataclasses import replace

import numpy as np
import pytest

from loopdit.datasets.spec import Observation
from loopdit.deploy.jpeg_frames import decoded, encoded
from loopdit.envs.arm_env import arm_spec
from loopdit.errors import ConfigError
from loopdit.eval.rollouts.faults import (
    EpisodeFaults,
    Fault,
    parse_faults,
    require_dispensable,
)

SPEC = arm_spec(16)
MAX_STEPS = 120
STEPS = 60


def observation(step: int) -> Observation:
    """Every pixel of the front camera is step + 1, of the wrist camera step + 101."""
    frames = {
        camera.name: np.full(camera.shape, step + 1 + 100 * place, np.uint8)
        for place, camera in enumerate(SPEC.cameras)
    }
    return {**frames, "proprio": np.full(SPEC.proprio.shape, step, np.float32)}


def seen(text: str, seed: int = 3, steps: int = STEPS) -> list[Observation]:
    faults = EpisodeFaults(parse_faults(text), SPEC, seed, MAX_STEPS)
    return [faults.apply(observation(step), step) for step in range(steps)]


def shown(observations: list[Observation], camera: str) -> list[int]:
    """The step each frame is of, -1 for black."""
    offset = {"front": 1, "wrist": 101}[camera]
    values = [int(o[f"images.{camera}"].max()) for o in observations]
    return [value - offset if value else -1 for value in values]


def test_without_a_fault_everything_is_seen_as_it_is():
    for step, found in enumerate(seen("none")):
        for name, value in observation(step).items():
            np.testing.assert_array_equal(found[name], value)


def test_frozen_cameras_stand_still_together_from_a_step_of_the_first_quarter_on():
    onsets: set[int] = set()
    for seed in range(200):
        front = shown(seen("frozen", seed), "front")
        onset = front[-1]
        assert front == [min(step, onset) for step in range(STEPS)]
        assert shown(seen("frozen", seed), "wrist") == front
        onsets.add(onset)
    # Each of the 31 steps is missed by 200 seeds once in 700 runs; these two are the range.
    assert onsets <= set(range(31))
    assert len(onsets) > 20


def test_a_camera_that_is_named_is_hit_alone():
    observations = seen("frozen:front")
    assert shown(observations, "front")[-1] <= MAX_STEPS // 4
    assert shown(observations, "wrist") == list(range(STEPS))


def test_black_frames_are_all_zeros_and_proprio_stays():
    observations = seen("black:wrist")
    assert shown(observations, "wrist") == [-1] * STEPS
    assert [o["proprio"][0] for o in observations] == list(range(STEPS))


def test_a_dropped_frame_shows_the_last_one_that_was_not():
    front, wrist = (shown(seen("dropped:0.3", steps=140), camera) for camera in ("front", "wrist"))
    assert front != wrist  # each camera on its own
    lost = [step for step, frame in enumerate(front) if frame != step]
    for step in lost:
        assert front[step] == front[step - 1]
    # 42 of 140 expected, standard deviation 5.4, five of them.
    assert 15 <= len(lost) <= 69


def test_a_camera_that_drops_everything_shows_its_first_frame():
    assert shown(seen("dropped:1"), "front") == [0] * STEPS


def test_delayed_frames_are_as_many_steps_old_and_the_first_one_at_the_start():
    observations = seen("delayed:2:front")
    assert shown(observations, "front") == [max(0, step - 2) for step in range(STEPS)]
    assert shown(observations, "wrist") == list(range(STEPS))


def test_jpeg_frames_are_what_a_server_gets_of_them_at_that_quality():
    rng = np.random.default_rng(0)
    noisy = {
        camera.name: rng.integers(0, 256, camera.shape, dtype=np.uint8) for camera in SPEC.cameras
    }
    raw = {**observation(0), **noisy}
    for text, quality, names in (
        ("jpeg:90", 90, ["images.front", "images.wrist"]),
        ("jpeg:20:wrist", 20, ["images.wrist"]),
    ):
        found = EpisodeFaults(parse_faults(text), SPEC, 0, MAX_STEPS).apply(raw, 0)
        sent, all_cameras = encoded(raw, SPEC, quality)
        received = decoded(sent, all_cameras, SPEC)
        for name, value in found.items():
            expected = received[name] if name in names else raw[name]
            np.testing.assert_array_equal(value, expected)
            assert np.array_equal(value, raw[name]) == (name not in names)


def test_proprio_noise_has_the_deviation_that_is_asked_for_in_raw_units():
    noise = np.stack([o["proprio"] - step for step, o in enumerate(seen("proprio-noise:0.02"))])
    assert noise.dtype == np.float32
    # 780 draws: the deviation is off by a quarter once in 10^18 runs, the mean by 0.004 in 10^7.
    assert np.std(noise) == pytest.approx(0.02, rel=0.25)
    assert abs(noise.mean()) < 0.004
    assert shown(seen("proprio-noise:0.02"), "front") == list(range(STEPS))


def test_joined_faults_follow_each_other():
    observations = seen("delayed:3:front+black:wrist+proprio-noise:0.5")
    assert shown(observations, "front")[10] == 7
    assert shown(observations, "wrist")[10] == -1
    assert observations[10]["proprio"].std() > 0.05


@pytest.mark.parametrize("text", ["frozen", "dropped:0.5", "proprio-noise:0.1"])
def test_what_is_random_comes_back_with_the_seed_and_differs_between_seeds(text: str):
    def digest(seed: int) -> bytes:
        return b"".join(v.tobytes() for o in seen(text, seed) for v in o.values())

    assert digest(1) == digest(1)
    assert len({digest(seed) for seed in range(5)}) > 1


def test_the_frame_that_is_shown_again_is_not_overwritten_by_the_next_one():
    memory = np.zeros(SPEC.cameras[0].shape, np.uint8)
    faults = EpisodeFaults(parse_faults("delayed:1:front"), SPEC, 0, MAX_STEPS)
    found: list[int] = []
    for step in range(4):
        memory[:] = step
        frame = faults.apply({**observation(step), "images.front": memory}, step)["images.front"]
        found.append(int(frame.max()))
    assert found == [0, 0, 1, 2]


def test_frames_that_were_left_out_stay_out():
    faults = EpisodeFaults(parse_faults("black+dropped:0.5"), SPEC, 0, MAX_STEPS)
    only = {"proprio": np.zeros(13, np.float32)}
    assert list(faults.apply(only, 0)) == ["proprio"]


def test_texts_say_what_they_say():
    assert parse_faults("none") == ()
    assert parse_faults("dropped:0.3:wrist+proprio-noise:0.02") == (
        Fault("dropped", 0.3, "wrist"),
        Fault("proprio-noise", 0.02),
    )


@pytest.mark.parametrize(
    "text",
    ["blurred", "dropped", "dropped:2", "dropped:x", "delayed:1.5", "delayed:-1", "black:",
     "frozen:front:wrist", "proprio-noise:0.1:front", "none+black", "", "delayed:nan",
     "jpeg", "jpeg:0", "jpeg:101", "jpeg:90.5", "jpeg:high"],
)  # fmt: skip
def test_an_unknown_fault_is_refused_with_those_that_are_known(text: str):
    with pytest.raises(ConfigError, match=r"is unknown. Use: none, frozen\[:CAMERA\].*joined by"):
        parse_faults(text)


def test_a_camera_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"camera 'left'. The cameras are: front, wrist"):
        EpisodeFaults(parse_faults("black:left"), SPEC, 0, MAX_STEPS)
    blind = replace(SPEC, observations=(SPEC.proprio,))
    with pytest.raises(ConfigError, match="needs a camera; this environment has none"):
        EpisodeFaults(parse_faults("frozen"), blind, 0, MAX_STEPS)
    EpisodeFaults(parse_faults("proprio-noise:0.1"), blind, 0, MAX_STEPS)


def test_a_missing_camera_is_not_in_the_observation_at_any_step():
    for found in seen("missing:wrist+black:wrist"):
        assert list(found) == ["images.front", "proprio"]
        SPEC.with_optional_cameras().check_observation(found)


def test_only_a_policy_that_can_do_without_a_camera_has_it_missing():
    faults = parse_faults("missing:wrist+proprio-noise:0.1")
    optional = SPEC.with_optional_cameras()
    require_dispensable(faults, optional)
    require_dispensable(parse_faults("black"), None)
    for spec in (SPEC, None, replace(optional, optional=("images.front",))):
        with pytest.raises(ConfigError, match=r"missing:wrist .* policy\.optional_cameras=true"):
            require_dispensable(faults, spec)
    with pytest.raises(ConfigError, match=r"fault=missing:wrist\+missing:front takes away every"):
        require_dispensable(parse_faults("missing:wrist+missing:front"), optional)


@pytest.mark.parametrize("text", ["missing", "missing:0.5:wrist", "missing:"])
def test_a_missing_camera_has_to_be_named(text: str):
    with pytest.raises(ConfigError, match=r"is unknown\. Use: none"):
        parse_faults(text)
