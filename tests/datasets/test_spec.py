import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.spec import FROM_COMMITTED, Observation, PolicySpec, TensorSpec
from loopdit.errors import ObservationError, SpecMismatch

names = st.text("abcdefghijklmnopqrstuvwxyz._", min_size=1, max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tensors(draw: st.DrawFn) -> TensorSpec:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))

    def for_each_element(values: st.SearchStrategy[Any]) -> tuple[Any, ...]:
        each = st.lists(values, min_size=shape[-1], max_size=shape[-1])
        return tuple(draw(st.just([]) | each))

    return TensorSpec(
        name=draw(names),
        shape=tuple(shape),
        dtype=draw(st.sampled_from(["uint8", "float32", "int64"])),
        labels=for_each_element(st.text()),
        units=for_each_element(st.text()),
        low=for_each_element(finite),
        high=for_each_element(finite),
    )


@st.composite
def specs(draw: st.DrawFn) -> PolicySpec:
    return PolicySpec(
        observations=tuple(draw(st.lists(tensors(), max_size=3, unique_by=lambda t: t.name))),
        action=draw(tensors()),
        action_frame=draw(st.text()),
        control_period_s=draw(st.floats(1e-3, 10)),
    )


@given(original=specs())
def test_a_spec_read_back_from_json_is_the_same_spec(original: PolicySpec):
    read = PolicySpec.from_dict(json.loads(json.dumps(original.to_dict())))
    assert read == original
    assert read.digest() == original.digest()
    assert read.differences(original) == []


@given(one=specs(), other=specs())
def test_digests_are_equal_exactly_when_no_field_differs(one: PolicySpec, other: PolicySpec):
    assert (one.digest() == other.digest()) == (one.differences(other) == [])


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"control_period_s": 0.05}, "control_period_s is 0.1, there 0.05"),
        ({"action_frame": "gripper"}, "action_frame is base of the robot, there gripper"),
        (
            {"action": TensorSpec("action", (3,), "float64")},
            "action.dtype is float32, there float64",
        ),
        (
            {"observations": (TensorSpec("proprio", (3,), "float32"),)},
            "proprio.shape is [2], there [3]",
        ),
    ],
)
def test_a_difference_names_the_field_and_both_values(
    spec: PolicySpec, change: dict[str, Any], phrase: str
):
    changed = replace(spec, **change)
    assert phrase in spec.differences(changed)
    assert spec.digest() != changed.digest()


def test_another_order_of_the_cameras_reads_as_an_order(spec: PolicySpec):
    front, wrist, proprio = spec.observations
    swapped = replace(spec, observations=(wrist, front, proprio))
    assert spec.differences(swapped) == [
        "observations (order) is ['images.front', 'images.wrist', 'proprio'], "
        "there ['images.wrist', 'images.front', 'proprio']"
    ]


def test_unequal_specs_are_refused_with_whose_they_are_and_what_to_do(spec: PolicySpec):
    with pytest.raises(SpecMismatch, match=r"^mine and yours do not match: control_.* Do this\.$"):
        spec.require_equal(replace(spec, control_period_s=0.2), "mine", "yours", "Do this.")


def test_a_spec_of_another_version_is_refused_with_both_versions(spec: PolicySpec):
    with pytest.raises(SpecMismatch, match=r"version 7; this loopdit reads version 1"):
        PolicySpec.from_dict(spec.to_dict() | {"version": 7})


def test_a_spec_without_a_field_is_refused_with_its_name(spec: PolicySpec):
    data = spec.to_dict()
    del data["action_frame"]
    with pytest.raises(SpecMismatch, match="action_frame"):
        PolicySpec.from_dict(data)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("observations", "", "observations is ''"),
        ("observations", ["images.front"], "a tensor is 'images.front'"),
        ("action_frame", None, "action_frame is None"),
        ("control_period_s", "0.1", "control_period_s is '0.1'"),
        ("control_period_s", 0, "control_period_s is 0"),
        ("history", 1.5, "history is 1.5"),
        ("action.shape", None, "shape of action is None"),
        ("action.shape", ["3"], "shape of action is"),
        ("action.shape", [], "3 labels for a last axis of 0"),
        ("action.shape", [-3], "shape of action is"),
        ("action.labels", [1, 2, 3], "labels of action is"),
        ("action.low", [True, 0, 0], "low of action is"),
        ("action.dtype", "object", "dtype of action is 'object'"),
        ("action.name", 5, "name is 5"),
    ],
)
def test_a_spec_with_a_value_that_cannot_be_is_refused_with_its_key(
    spec: PolicySpec, key: str, value: object, said: str
):
    data = spec.to_dict()
    *parents, last = key.split(".")
    place = data[parents[0]] if parents else data
    place[last] = value
    with pytest.raises(SpecMismatch, match=said):
        PolicySpec.from_dict(data)


def test_labels_that_do_not_count_the_last_axis_are_refused():
    with pytest.raises(ValueError, match=r"proprio: 1 labels for a last axis of 2"):
        TensorSpec("proprio", (2,), "float32", labels=("only one",))


def test_the_spec_of_a_policy_with_history_has_that_many_observations_in_one(spec: PolicySpec):
    stacked = spec.with_history(3)
    assert [t.shape for t in stacked.observations] == [(3, 4, 4, 3), (3, 4, 4, 3), (3, 2)]
    assert stacked.proprio.labels == ("shoulder", "gripper")
    assert stacked.action == spec.action
    assert stacked.without_history() == spec
    assert PolicySpec.from_dict(json.loads(json.dumps(stacked.to_dict()))) == stacked
    assert "history is absent, there 3" in spec.differences(stacked)


@given(original=specs())
def test_a_history_of_one_is_no_history_and_is_not_written_down(original: PolicySpec):
    assert original.with_history(1) == original
    assert original.without_history() == original
    assert "history" not in original.to_dict()


def test_a_history_that_the_shapes_do_not_have_is_refused(spec: PolicySpec):
    with pytest.raises(SpecMismatch, match=r"images.front has shape \(4, 4, 3\); its first axis"):
        PolicySpec.from_dict(spec.to_dict() | {"history": 2})
    with pytest.raises(ValueError, match="a history of 2 already"):
        spec.with_history(2).with_history(2)


def test_a_policy_that_is_told_what_is_in_flight_has_one_more_tensor_of_labelled_actions(
    spec: PolicySpec,
):
    told = spec.with_committed(5)
    assert told.observations[:-1] == spec.observations
    assert told.committed == TensorSpec(
        "committed", (5, 4), "float32", ("x", "y", "grip", "committed"), ("m", "m", "1", "1")
    )
    assert (told.max_committed, spec.max_committed, spec.committed) == (5, 0, None)
    assert told.without_committed() == spec.without_committed() == spec
    assert spec.with_committed(0) == spec
    assert PolicySpec.from_dict(json.loads(json.dumps(told.to_dict()))) == told
    assert "chunk_from" not in told.to_dict()
    unlabelled = replace(spec, action=TensorSpec("action", (3,), "float32"))
    assert unlabelled.with_committed(2).committed == TensorSpec("committed", (2, 4), "float32")
    with pytest.raises(ValueError, match="5 committed actions already"):
        told.with_committed(2)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ([1, 1, 0.5], r"committed says 0\.5 at the end of row 2, where 1 is an action in flight"),
        ([1, -1, 0], r"committed says -1 at the end of row 1"),
        ([0, 1, 0], r"committed has no action in row 0 and one in row 1\. Send the actions in fl"),
        ([1, 0, 1], r"committed has no action in row 1 and one in row 2"),
    ],
)
def test_actions_in_flight_that_have_a_hole_are_refused(
    spec: PolicySpec, there: list[float], said: str
):
    spec = spec.with_committed(3)
    observation = {t.name: np.zeros(t.shape, t.dtype) for t in spec.observations}
    for full in ([0, 0, 0], [1, 0, 0], [1, 1, 1]):
        observation["committed"][:, -1] = full
        spec.check_observation(observation)
    observation["committed"][:, -1] = there
    with pytest.raises(ObservationError, match=said):
        spec.check_observation(observation)


@given(original=specs(), history=st.integers(1, 4), committed=st.integers(0, 4))
def test_what_is_recorded_is_the_same_whatever_a_policy_is_given_besides(
    original: PolicySpec, history: int, committed: int
):
    told = original.with_history(history).with_committed(committed)
    assert told == original.with_committed(committed).with_history(history)
    assert told.recorded == original == original.recorded
    assert told.without_history() == original.with_committed(committed)
    assert PolicySpec.from_dict(json.loads(json.dumps(told.to_dict()))) == told


def test_a_spec_says_where_the_chunk_of_a_policy_that_is_told_begins(spec: PolicySpec):
    after = spec.with_committed(2, FROM_COMMITTED)
    assert spec.with_committed(2).differences(after) == ["chunk_from is absent, there committed"]
    assert PolicySpec.from_dict(json.loads(json.dumps(after.to_dict()))) == after
    assert after.without_committed() == spec
    with pytest.raises(SpecMismatch, match="chunk_from is 'never'"):
        PolicySpec.from_dict(after.to_dict() | {"chunk_from": "never"})
    with pytest.raises(SpecMismatch, match="nothing is committed"):
        PolicySpec.from_dict(spec.to_dict() | {"chunk_from": "committed"})
    with pytest.raises(ValueError, match=r"committed is \(2, 3\) float32; it must be \(D, 4\)"):
        replace(spec, observations=(TensorSpec("committed", (2, 3), "float32"),))


def test_an_observation_without_its_history_is_refused(spec: PolicySpec):
    one = {t.name: np.zeros(t.shape, t.dtype) for t in spec.observations}
    with pytest.raises(ObservationError, match=r"images.front has .* policy takes \(2, 4, 4, 3\)"):
        spec.with_history(2).check_observation(one)


@pytest.fixture
def observation() -> dict[str, np.ndarray]:
    return {
        "images.front": np.zeros((4, 4, 3), np.uint8),
        "images.wrist": np.zeros((4, 4, 3), np.uint8),
        "proprio": np.zeros(2, np.float32),
    }


def test_an_observation_as_declared_is_accepted(spec: PolicySpec, observation: Observation):
    spec.check_observation(observation)


@pytest.mark.parametrize(
    ("name", "value", "refusal"),
    [
        ("images.top", np.zeros((4, 4, 3), np.uint8), r"has 'images.top', which .* does not take"),
        ("images.front", None, r"lacks 'images.front'. Send exactly: images.front, images.wrist"),
        ("proprio", np.zeros(3, np.float32), r"proprio has shape \(3,\) .* takes \(2,\) float32"),
        ("proprio", [0.0, 0.0], r"proprio is a list; send a numpy array of shape \(2,\)"),
        ("proprio", np.zeros(2), r"proprio has shape \(2,\) and dtype float64"),
        ("images.wrist", np.zeros((3, 4, 4), np.uint8), r"images.wrist has shape \(3, 4, 4\)"),
        ("proprio", np.array([0, np.nan], np.float32), r"proprio is not finite at index \[1\]"),
        ("proprio", np.array([np.inf, 0], np.float32), r"proprio is not finite at index \[0\]"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_with_the_tensor_and_what_was_found(
    spec: PolicySpec,
    observation: dict[str, np.ndarray],
    name: str,
    value: Any,
    refusal: str,
):
    if value is None:
        del observation[name]
    else:
        observation[name] = value
    with pytest.raises(ObservationError, match=refusal):
        spec.check_observation(observation)
