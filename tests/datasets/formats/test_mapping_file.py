"""Mapping files: the ready ones on the formats they are for, and refusals that name the field."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml

from loopdit.datasets.formats.foreign import ForeignEpisode
from loopdit.datasets.formats.layout import lay_out, step_shapes
from loopdit.datasets.formats.mapped_episode import to_ours
from loopdit.datasets.formats.mapping_file import (
    mapping_from_dict,
    mapping_to_dict,
    read_mapping,
    ready_mappings,
)
from loopdit.datasets.spec import PolicySpec
from loopdit.errors import ConfigError

FRAMES = np.full((2, 4, 4, 3), 9, np.uint8)
GOOD = {"proprio": "state", "action": [{"keys": ["action"], "scale": -1}]}


def mapped(name: str, **steps: np.ndarray) -> tuple[PolicySpec, np.ndarray, np.ndarray]:
    """The spec, the proprio and the actions that a ready mapping makes; "/" is written "__"."""
    foreign = ForeignEpisode("here", {key.replace("__", "/"): v for key, v in steps.items()})
    layout = lay_out(read_mapping(name), step_shapes(foreign), "here")
    ours = to_ours(layout, foreign)
    return layout.spec(read_mapping(name).rate_hz), ours.observations["proprio"], ours.actions


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 100


def test_the_ready_mappings_are_the_files_of_the_package():
    files = (resources.files("loopdit.datasets") / "mappings").iterdir()
    assert {f"{name}.yaml" for name in ready_mappings()} == {f.name for f in files}
    assert {"aloha", "bridge", "libero", "robomimic"} <= set(ready_mappings())


@pytest.mark.parametrize("name", ready_mappings())
def test_a_ready_mapping_says_rate_frame_convention_and_labels(name: str):
    mapping = read_mapping(name)
    assert mapping.rate_hz > 0
    assert mapping.action_frame
    assert mapping.convention in ("delta", "absolute")
    assert all(part.labels and part.units for part in (*mapping.proprio, *mapping.action))
    assert mapping_from_dict(mapping_to_dict(mapping), "again") == mapping


def test_bridge_is_the_same_in_rlds_in_open_x_and_in_lerobot():
    action, state = numbers(2, 7), numbers(2, 7)
    padded = np.insert(state, 6, 0, axis=1)
    made = [
        mapped("bridge", observation__image_0=FRAMES, observation__state=state, action=action),
        mapped(
            "bridge",
            observation__image=FRAMES,
            observation__state=state,
            action__world_vector=action[:, :3],
            action__rotation_delta=action[:, 3:6],
            action__open_gripper=action[:, 6],
        ),
        mapped(
            "bridge",
            **{
                "observation.images.image_0": FRAMES,
                "observation.state": padded,
                "action": action,
            },
        ),
    ]
    for spec, proprio, actions in made:
        assert spec == made[0][0]
        np.testing.assert_array_equal(proprio, state)
        np.testing.assert_array_equal(actions, action)
    spec = made[0][0]
    assert spec.action.labels == ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
    assert spec.control_period_s == pytest.approx(1 / 5)


def test_libero_turns_the_gripper_around_in_hdf5_in_rlds_and_in_lerobot():
    action, state = numbers(2, 7), numbers(2, 8)
    action[:, 6] = (-1, 1)  # open, then closed
    made = [
        mapped(
            "libero",
            obs__agentview_rgb=FRAMES,
            obs__ee_pos=state[:, :3],
            obs__ee_ori=state[:, 3:6],
            obs__gripper_states=state[:, 6:],
            actions=action.astype(float),
        ),
        mapped("libero", observation__image=FRAMES, observation__state=state, action=action),
        mapped(
            "libero",
            **{"observation.images.image": FRAMES, "observation.state": state, "action": action},
        ),
        mapped("libero", image=FRAMES, state=state, actions=action),
    ]
    for spec, proprio, actions in made:
        assert spec == made[0][0]
        np.testing.assert_array_equal(proprio, state)
        np.testing.assert_array_equal(actions[:, :6], action[:, :6])
        np.testing.assert_array_equal(actions[:, 6], [1, 0])
    assert made[0][0].action.low == (-1,) * 6 + (0,)


def test_aloha_is_fourteen_absolute_joints_of_the_left_arm_then_the_right():
    joints = numbers(2, 14)
    spec, proprio, actions = mapped(
        "aloha",
        **{
            "observation.images.cam_high": FRAMES,
            "observation.state": joints,
            "action": joints + 1,
        },
    )
    np.testing.assert_array_equal(proprio, joints)
    np.testing.assert_array_equal(actions, joints + 1)
    assert spec.action.labels[6] == "left_gripper"
    assert spec.action.labels[7] == "right_waist"
    assert spec.control_period_s == pytest.approx(1 / 50)


def test_robomimic_keeps_the_sign_that_the_suite_commands():
    action = numbers(2, 7)
    spec, proprio, actions = mapped(
        "robomimic",
        obs__agentview_image=FRAMES,
        obs__robot0_eef_pos=numbers(2, 3),
        obs__robot0_eef_quat=numbers(2, 4),
        obs__robot0_gripper_qpos=numbers(2, 2),
        actions=action.astype(float),
    )
    np.testing.assert_array_equal(actions, action)
    assert proprio.shape == (2, 9)
    assert spec.action.low == (-1,) * 7


def test_a_file_of_ones_own_is_read_and_a_single_word_stands_for_a_list(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD | {"cameras": {"top": "image"}, "rate_hz": 15}))
    mapping = read_mapping(str(file))
    assert mapping.cameras == {"top": ("image",)}
    assert mapping.proprio[0].keys == ("state",)
    assert mapping.action[0].scale == (-1.0,)
    assert mapping.rate_hz == 15.0


def test_the_example_of_the_documentation_is_a_mapping():
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    mapping = mapping_from_dict(yaml.safe_load(example), "the example")
    assert mapping.action[1].offset == (0.5,)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rate": 5}, r"mine has the unknown field 'rate'. Known are: cameras, proprio"),
        ({"action": None}, "mine lacks 'action'"),
        ({"action": [{"scale": [1]}]}, r"mine, action part 0 lacks 'keys'"),
        ({"action": [{"keys": ["a"], "scales": [1]}]}, r"action part 0 has the unknown field"),
        ({"action": [{"keys": ["a"], "scale": ["x"]}]}, r"part 0, scale has 'x' where a number"),
        ({"action": [{"keys": ["a"], "scale": [0]}]}, r"scale has a 0, which cannot be undone"),
        ({"action": [{"keys": ["a"], "units": [1]}]}, r"units has 1 where a text is needed"),
        ({"cameras": ["top"]}, r"mine, cameras is \['top'\], not a list of 'name: value'"),
        ({"convention": "relative"}, r"convention is 'relative'. Say delta or absolute"),
        ({"rate_hz": -5}, r"rate_hz is -5.0"),
        ({"rate_hz": float("inf")}, r"rate_hz has inf. Give a finite number"),
        ({"action": [{"keys": ["a"], "columns": [0.5]}]}, r"columns are \[0.5\]. Give whole"),
        ({"action": [{"keys": ["a"], "low": [1], "high": [0]}]}, r"low 1 is above high 0"),
        ({"action_frame": ["base"]}, r"action_frame is \['base'\], no text"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        mapping_from_dict(GOOD | change, "mine")


def test_an_unknown_name_a_missing_file_and_no_yaml_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"mapping=brigde is unknown\. Choose one of aloha, br"):
        read_mapping("brigde")
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        read_mapping(str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("cameras: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not YAML"):
        read_mapping(str(broken))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "cameras: {top: a, top: b}\nproprio: s\naction: a\n",
            r"the name 'top' stands there twice",
        ),
        ("proprio: s\naction: {keys: a, labels: [x, y, x]}\n", r"action has the label 'x' twice"),
        ("proprio: s\naction: a\naction: b\n", r"the name 'action' stands there twice"),
    ],
)
def test_what_a_file_says_twice_is_refused(tmp_path: Path, text: str, complaint: str):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.yaml.*{complaint}"):
        read_mapping(str(tmp_path / "mine.yaml"))
