from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.deploy.raw_client import ANY_PORT
from tests.deploy.serving.serving_process import serving

from loopdit.datasets.episode import Episode
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.operation.control_recorder import ControlRecorder
from loopdit.deploy.robot.control.controller import Acted
from loopdit.deploy.robot.control.seen_history import Seen

MIB = 2**20
SPEC = PolicySpec(
    observations=(TensorSpec("proprio", (1,), "float32", ("x",), ("m",)),),
    action=TensorSpec("action", (2,), "float32", ("dx", "gripper"), ("m", "1")),
    action_frame="base",
    control_period_s=0.1,
)


def seen(step: int, episode: int = 0) -> Seen:
    """What is observed is the control step that it is of."""
    return Seen({"proprio": np.array([step], np.float32)}, step, "go", episode)


def episodes_in(path: Path) -> list[Episode]:
    store = EpisodeStore.open(path)
    return [store.episode(index) for index in range(len(store.episodes))]


def acted(step: int, source: str = "policy") -> Acted:
    return Acted(np.array([step, step], np.float32), source, ())


def test_a_step_is_a_period_of_the_policy_with_all_that_was_done_in_it(tmp_path: Path):
    recorder = ControlRecorder(tmp_path / "a.zarr", SPEC, "m", 5, MIB)
    for step in range(16):
        if step % 2 == 0:  # a camera at half of the rate of control
            recorder.seen(seen(step))
        recorder.acted(step, acted(step, "hold" if step == 7 else "policy"))
    recorded = recorder.close()
    assert (recorded.steps, recorded.episodes, recorded.dropped) == (3, 1, 0)
    (episode,) = episodes_in(tmp_path / "a.zarr")
    assert episode.observations["proprio"][:, 0].tolist() == [0, 4, 10]
    # Shifts add up; of what says where to be, the first counts.
    assert episode.actions.tolist() == [[10, 0], [35, 5], [60, 10]]
    assert episode.extras["step"].tolist() == [0, 5, 10]
    assert episode.extras["seen_step"].tolist() == [0, 4, 10]
    assert episode.extras["held"].tolist() == [0, 1, 0]
    assert episode.instruction == "go"
    assert episode.metadata["model_id"] == "m"


def test_a_stop_and_a_period_in_which_nothing_is_seen_end_an_episode(tmp_path: Path):
    recorder = ControlRecorder(tmp_path / "a.zarr", SPEC, "m", 2, MIB)
    sources = {5: "emergency_stop", 6: "emergency_stop"}
    for step in range(20):
        if step < 12 or step > 15:
            recorder.seen(seen(step))
        recorder.acted(step, acted(step, sources.get(step) or "policy"))
    recorded = recorder.close()
    episodes = episodes_in(tmp_path / "a.zarr")
    assert [one.extras["step"].tolist() for one in episodes] == [[0, 2], [7, 9, 11], [17]]
    assert recorded.dropped == 3  # 4, which the stop broke off; 13 and 15, without an observation


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.integers(1, 3),
    events=st.lists(
        st.tuples(st.booleans(), st.integers(0, 4), st.booleans(), st.sampled_from("pppphs")),
        max_size=40,
    ),
)
def test_no_step_mixes_episodes_or_is_older_than_a_period(
    tmp_path_factory: pytest.TempPathFactory,
    parts: int,
    events: list[tuple[bool, int, bool, str]],
):
    path = tmp_path_factory.mktemp("recorded") / "a.zarr"
    recorder = ControlRecorder(path, SPEC, "m", parts, MIB)
    episode, episode_of = 0, dict[int, int]()
    names = {"p": "policy", "h": "hold", "s": "watchdog"}
    for step, (sees, age, another, source) in enumerate(events):
        if sees:
            episode += another
            recorder.seen(seen(max(0, step - age), episode))
        episode_of[step] = episode
        recorder.acted(step, acted(step, names[source]))
    recorded = recorder.close()
    found = episodes_in(path) if recorded.episodes else []
    for one in found:
        begun, of = one.extras["step"], one.extras["seen_step"]
        assert (np.diff(begun) == parts).all()
        assert ((begun - parts < of) & (of <= begun)).all()
        assert (one.observations["proprio"][:, 0] == of).all()
        assert len({episode_of[step] for step in begun.tolist()}) == 1
        wanted = [[step + i for i in range(parts)] for step in begun.tolist()]
        assert one.actions[:, 0].tolist() == [sum(steps) for steps in wanted]
        assert all(events[i][3] != "s" for steps in wanted for i in steps)


@pytest.mark.system
def test_what_a_robot_did_under_control_is_recorded_at_the_policys_own_rate(tmp_path: Path):
    path = tmp_path / "done.zarr"
    with serving(
        *("mode=control", "control.env=lift", "control.episodes=2", f"address={ANY_PORT}"),
        *(f"control.actions={ANY_PORT}", f"control.observations={ANY_PORT}", f"record={path}"),
    ) as server:
        server.until("recorded ")
        status, errors = server.end()
    assert status == 0, errors
    store = EpisodeStore.open(path)
    assert store.spec == Bundle.open(default_bundle()).spec.recorded
    for episode in episodes_in(path):
        assert (np.diff(episode.extras["step"]) == 5).all()  # of 50 Hz, at 10 Hz
        # The arm goes where it is told to, some periods later.
        moved = np.diff(episode.observations["proprio"][:, :3].sum(axis=1))
        told = episode.actions[:, :3].sum(axis=1)
        assert len(told) > 8
        assert np.corrcoef(moved[2:], told[:-3])[0, 1] > 0.5
