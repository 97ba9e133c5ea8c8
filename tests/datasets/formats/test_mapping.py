"""Foreign episodes under a mapping: values, and that nothing is lost on the way there and back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datasets.formats.rlds_episodes import foreign_episode, same_episode

from loopdit.datasets.episode import checked_arrays
from loopdit.datasets.formats.foreign import ForeignEpisode
from loopdit.datasets.formats.layout import Layout, lay_out, step_shapes
from loopdit.datasets.formats.mapped_episode import to_foreign, to_ours
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.errors import ConfigError

MAPPING = DataMapping(
    cameras={"front": ("observation/front",), "wrist": ("observation/wrist",)},
    proprio=(
        VectorPart(("observation/state",), ("y", "x"), ("mm", "mm"), (1, 0), (1000.0, 1000.0)),
    ),
    action=(
        VectorPart(("action[0:3]",), ("dx", "dy", "dz"), low=(-1,) * 3, high=(1,) * 3),
        VectorPart(("action[-1]",), ("grip",), scale=(-0.5,), offset=(0.5,), low=(0,), high=(1,)),
    ),
    action_frame="base of the robot",
    convention="delta",
    rate_hz=10.0,
    instruction=("language_instruction",),
    success=("episode_metadata/success",),
    seed=("episode_metadata/seed",),
)


def layout_for(mapping: DataMapping, episode: ForeignEpisode) -> Layout:
    return lay_out(mapping, step_shapes(episode), episode.where)


def test_parts_are_chosen_scaled_and_put_together_as_the_mapping_says():
    foreign = foreign_episode(0)
    layout = layout_for(MAPPING, foreign)
    ours = to_ours(layout, foreign)
    state, action = foreign.steps["observation/state"], foreign.steps["action"]
    np.testing.assert_array_equal(
        ours.observations["proprio"], (state[:, [1, 0]].astype(float) * 1000).astype(np.float32)
    )
    np.testing.assert_array_equal(ours.actions[:, :3], action[:, :3])
    np.testing.assert_allclose(ours.actions[:, 3], (1 - action[:, 3]) / 2, atol=1e-7)
    np.testing.assert_array_equal(
        ours.observations["images.wrist"], foreign.steps["observation/wrist"]
    )
    assert (ours.instruction, ours.success, ours.seed) == ("lift cube 0", None, None)


def test_the_spec_has_the_mappings_names_units_limits_frame_and_rate():
    layout = layout_for(MAPPING, foreign_episode(0))
    spec = layout.spec(rate_hz=10.0)
    assert [t.name for t in spec.observations] == ["images.front", "images.wrist", "proprio"]
    assert spec.cameras[0].shape == (6, 8, 3)
    assert (spec.proprio.labels, spec.proprio.units) == (("y", "x"), ("mm", "mm"))
    assert spec.action.labels == ("dx", "dy", "dz", "grip")
    assert (spec.action.low, spec.action.high) == ((-1, -1, -1, 0), (1, 1, 1, 1))
    assert spec.action_frame == "base of the robot"
    assert spec.control_period_s == pytest.approx(0.1)
    checked_arrays(to_ours(layout, foreign_episode(0)), spec)


def test_elements_without_labels_are_named_after_their_key():
    mapping = DataMapping(
        {}, (VectorPart(("observation/state",)),), (VectorPart(("action",)),), "base"
    )
    spec = layout_for(mapping, foreign_episode(0)).spec(10.0)
    assert spec.proprio.labels == ("state_0", "state_1", "state_2")
    assert spec.proprio.low == ()


KINDS = st.sampled_from(["float32", "float64", "float16", "int32", "int64", "uint8", "bool"])


@st.composite
def foreign_episodes(draw: Any) -> ForeignEpisode:
    """Any dtypes, shapes, texts and metadata that a format may have."""
    length = draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def array(kind: str, *shape: int) -> np.ndarray:
        values = random.normal(scale=50, size=(length, *shape))
        return np.abs(values).astype(kind) if kind == "uint8" else values.astype(kind)

    steps = {
        key: random.integers(0, 256, (length, 4, 5, 3), dtype=np.uint8)
        for key in ("observation/front", "observation/wrist")
    }
    steps["observation/state"] = array(draw(KINDS), 3)
    steps["action"] = array(draw(KINDS), 4)
    for key in draw(st.lists(st.sampled_from(["reward", "a/b", "c d", "ü"]), unique=True)):
        steps[key] = array(draw(KINDS), *draw(st.lists(st.integers(1, 3), max_size=2)))
    words = st.text(max_size=5)
    many = st.lists(words, min_size=length, max_size=length).map(tuple)
    texts = draw(
        st.dictionaries(
            st.sampled_from(["language_instruction", "subtask"]),
            st.one_of(many, st.tuples(words)),
        )
    )
    plain = st.one_of(st.none(), st.booleans(), st.integers(0, 2**40), words, st.floats(0, 1))
    keys = ["episode_metadata/success", "episode_metadata/seed", "file"]
    metadata: dict[str, Any] = draw(st.dictionaries(st.sampled_from(keys), plain))
    if not isinstance(metadata.get("episode_metadata/seed", 0), int):
        del metadata["episode_metadata/seed"]  # what is no number cannot be a seed
    return ForeignEpisode("file, episode 3", steps, texts, metadata)


@given(foreign_episodes())
def test_the_way_back_gives_every_key_of_an_episode_bit_by_bit(foreign: ForeignEpisode):
    layout = layout_for(MAPPING, foreign)
    same_episode(to_foreign(layout, to_ours(layout, foreign), foreign.where), foreign)


@given(
    scale=st.sampled_from([1.0, -1.0, 0.5, -2.0, 1024.0]),
    values=st.lists(
        # Subnormal numbers lose digits when they are made smaller.
        st.floats(-1e6, 1e6, width=32, allow_subnormal=False).filter(lambda v: abs(v) > 1e-30),
        min_size=4,
        max_size=4,
    ),
)
def test_signs_and_powers_of_two_are_undone_exactly_by_our_own_numbers(
    scale: float, values: list[float]
):
    part = VectorPart(("action",), scale=(scale,) * 4)
    mapping = DataMapping({}, (VectorPart(("observation/state",)),), (part,), "base")
    foreign = foreign_episode(0, 1, action=np.array([values], np.float32))
    layout = layout_for(mapping, foreign)
    assert "action" not in to_ours(layout, foreign).extras  # nothing was kept to help


def test_what_float32_cannot_hold_is_kept_beside_it():
    foreign = foreign_episode(0, action=np.full((4, 4), 0.1))  # float64
    layout = layout_for(MAPPING, foreign)
    ours = to_ours(layout, foreign)
    assert ours.actions.dtype == np.float32
    assert ours.extras["action"].dtype == np.float64
    # Elements that no part takes are not lost either.
    assert "observation/state" in ours.extras


def test_keys_that_are_dropped_are_gone_and_unnamed_ones_are_extras():
    from dataclasses import replace

    foreign = foreign_episode(0, next_reward=np.zeros(4))
    layout = layout_for(replace(MAPPING, drop=("next_reward",)), foreign)
    extras = to_ours(layout, foreign).extras
    assert "next_reward" not in extras
    np.testing.assert_array_equal(extras["reward"], foreign.steps["reward"])


@pytest.mark.parametrize(
    ("told", "success"),
    [(True, True), (False, False), ("true", True), ("0", False), (None, None), (1.0, True)],
)
def test_success_is_what_the_data_set_says_or_unknown(told: Any, success: bool | None):
    foreign = foreign_episode(0)
    foreign = ForeignEpisode(
        "here", foreign.steps, {}, {"episode_metadata/success": told, "episode_metadata/seed": 7}
    )
    ours = to_ours(layout_for(MAPPING, foreign), foreign)
    assert (ours.success, ours.seed) == (success, 7)


def test_success_of_a_key_of_the_steps_is_any_step_above_zero():
    from dataclasses import replace

    mapping = replace(MAPPING, success=("reward",))
    for rewards, success in (([0, 0, 0, 0], False), ([0, 0, 1, 0], True)):
        foreign = foreign_episode(0, reward=np.array(rewards, np.float32))
        assert to_ours(layout_for(mapping, foreign), foreign).success is success


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (VectorPart(("torque", "force")), r"none of the mapping's keys 'torque', 'force' is there"),
        (VectorPart(("action[2:9]",), ("a",)), r"1 labels for the 2 elements of 'action'"),
        (VectorPart(("action[4]",)), r"takes the elements \(4,\) of 'action\[4\]', which has 4"),
        (VectorPart(("action",), scale=(1.0, 2.0)), r"2 scale for the 4 elements of 'action'"),
    ],
)
def test_a_part_that_does_not_fit_the_data_names_the_key(part: VectorPart, complaint: str):
    mapping = DataMapping({}, (VectorPart(("observation/state",)),), (part,), "base")
    with pytest.raises(ConfigError, match=complaint):
        layout_for(mapping, foreign_episode(0))


def test_a_mapping_with_none_of_the_cameras_lists_the_images_there_are():
    from dataclasses import replace

    with pytest.raises(ConfigError, match=r"none of .*'top'.*images are 'observation/front', "):
        layout_for(replace(MAPPING, cameras={"top": ("top",)}), foreign_episode(0))
