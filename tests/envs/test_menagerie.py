# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false
import struct
import zlib
from pathlib import Path

import mujoco
import numpy as np
import pytest

from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.registry import make_env
from loopdit.errors import ConfigError

# Body, where it is in its parent, mesh, where the visual geom is. As in the real model; the meshes
# are boxes (in millimetres, like the real ones).
LINKS = [
    ("base_link", "0 0 0", "1_base", 'quat="1 0 0 1"', (60, 60, 36)),
    ("shoulder_link", "0 0 .072", "2_shoulder", 'pos="0 0 -.003" quat="1 0 0 1"', (30, 30, 20)),
    ("upper_arm_link", "0 0 .03865", "3_upper_arm", 'quat="1 0 0 1"', (20, 20, 120)),
    ("upper_forearm_link", ".04975 0 .25", "4_upper_forearm", "", (80, 15, 15)),
    ("lower_forearm_link", ".175 0 0", "5_lower_forearm", 'quat="0 1 0 0"', (30, 15, 15)),
    ("wrist_link", ".075 0 0", "6_wrist", 'quat="1 0 0 1"', (15, 20, 15)),
    ("gripper_link", ".065 0 0", "7_gripper", 'pos="-.02 0 0" quat="1 0 0 1"', (30, 20, 15)),
]
FINGER = "10_gripper_finger"


def write_checkout(root: Path) -> Path:
    """A folder with a trossen_wx250s of the real one's structure: names, nesting, classes, assets
    without names of their own, a textured material, visual and colliding geoms."""
    assets = root / "trossen_wx250s" / "assets"
    assets.mkdir(parents=True)
    (assets / "interbotix_black.png").write_bytes(blue_png())
    bodies, ends = "", ""
    for name, position, mesh, frame, half_sizes in LINKS:
        write_box_stl(assets / f"wx250s_{mesh}.stl", half_sizes)
        geoms = "".join(
            f'<geom {frame} mesh="wx250s_{mesh}" class="{kind}"/>'
            for kind in ("visual", "collision")
        )
        bodies += f'<body name="wx250s/{name}" pos="{position}" childclass="wx250s">{geoms}'
        ends += "</body>"
    write_box_stl(assets / f"wx250s_{FINGER}.stl", (20, 4, 8))
    for side, turn in (("left", "0 0 0 -1"), ("right", "0 0 1 0")):
        bodies += (
            f'<body name="wx250s/{side}_finger_link" pos=".066 0 0">'
            f'<geom quat="{turn}" mesh="wx250s_{FINGER}" class="visual"/>'
            f'<geom size=".0006" class="sphere"/></body>'
        )
    meshes = "".join(
        f'<mesh file="wx250s_{mesh}.stl" class="wx250s"/>'
        for mesh in [mesh for _, _, mesh, _, _ in LINKS] + [FINGER]
    )
    (root / "trossen_wx250s" / "wx250s.xml").write_text(
        f"""<mujoco model="wx250s">
        <compiler angle="radian" meshdir="assets" texturedir="assets" autolimits="true"/>
        <asset><texture type="2d" file="interbotix_black.png"/>
        <material name="black" texture="interbotix_black"/>{meshes}</asset>
        <default><default class="wx250s"><mesh scale=".001 .001 .001"/>
          <default class="visual">
            <geom type="mesh" contype="0" conaffinity="0" density="0" group="2" material="black"/>
          </default>
          <default class="collision"><geom group="3" type="mesh"/>
            <default class="sphere"><geom type="sphere"/></default></default>
        </default></default>
        <worldbody>{bodies}{ends}</worldbody></mujoco>""",
        encoding="utf-8",
    )
    return root


def write_box_stl(path: Path, half_sizes: tuple[int, int, int]) -> None:
    low = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T
    corners = low * half_sizes
    faces = "013 032 467 475 051 045 237 276 026 064 157 173"
    triangles = [corners[[int(i) for i in face]] for face in faces.split()]
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *t.ravel(), 0) for t in triangles)
    path.write_bytes(bytes(80) + struct.pack("<I", len(triangles)) + body)


def blue_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes([20, 40, 250]) * 2) * 2
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkout(tmp_path_factory.mktemp("mujoco_menagerie"))


@pytest.fixture
def dressed(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MENAGERIE_ROOT", str(checkout))
    env = make_env("lift", image_size=64)
    yield env
    env.close()


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    env = make_env("lift", image_size=64)
    yield env
    env.close()


def states(env: ArmEnv, seed: int) -> np.ndarray:
    """Of an episode of the expert, grasp and lift included."""
    env.observing = False
    env.reset(seed=seed)
    expert, found, done = env.expert(), [env.state()], False
    while not done:
        *_, done, _, _ = env.step(expert.action())
        found.append(env.state())
    return np.array(found)


def test_states_are_the_same_to_the_bit_in_meshes_and_in_shapes(dressed: ArmEnv, plain: ArmEnv):
    for seed in range(3):
        np.testing.assert_array_equal(states(dressed, seed), states(plain, seed))


def test_the_arm_is_seen_in_its_meshes_and_nothing_of_it_in_its_shapes(
    dressed: ArmEnv, plain: ArmEnv
):
    def bluish(env: ArmEnv, camera: str) -> int:
        frame = env.reset(seed=0)[0][f"images.{camera}"].astype(int)
        return int((frame[..., 2] - frame[..., :2].max(axis=2) > 40).sum())

    for camera in ("front", "wrist"):
        assert bluish(dressed, camera) > 100
        assert bluish(plain, camera) == 0
    # With the meshes taken away as well, an empty table is left: no shape of ours is drawn.
    model = dressed.arm.model
    model.geom_group[model.geom_type == mujoco.mjtGeom.mjGEOM_MESH] = 4
    front = dressed.reset(seed=0)[0]["images.front"].astype(int)
    redness = front[..., 0] - front[..., 2]
    assert (redness > 20).mean() > 0.99  # table and cube, nowhere the arm's grey


def test_each_mesh_is_where_the_real_model_has_it(dressed: ArmEnv, checkout: Path):
    """MuJoCo's own reading of that file, at the joints' zeros, is the reference."""
    theirs = mujoco.MjModel.from_xml_path(str(checkout / "trossen_wx250s" / "wx250s.xml"))
    there, here = mujoco.MjData(theirs), mujoco.MjData(dressed.arm.model)
    mujoco.mj_kinematics(theirs, there)
    mujoco.mj_kinematics(dressed.arm.model, here)
    seen = np.flatnonzero(theirs.geom_group == 2)
    worn = np.flatnonzero(dressed.arm.model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
    assert len(seen) == len(worn) == 9
    np.testing.assert_allclose(here.geom_xmat[worn], there.geom_xmat[seen], atol=1e-9)
    moved = here.geom_xpos[worn] - there.geom_xpos[seen]
    np.testing.assert_allclose(moved[:7], 0, atol=1e-9)
    # Our fingers close at zero travel, the real ones at 15 mm: the meshes go out to our pads.
    np.testing.assert_allclose(moved[7:], [[0, 0.0086, 0], [0, -0.0086, 0]], atol=1e-9)


def test_without_the_variable_the_arm_has_no_mesh(plain: ArmEnv):
    assert plain.arm.model.nmesh == 0


def test_a_folder_without_the_model_is_refused_by_the_file_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    with pytest.raises(ConfigError, match=r"MENAGERIE_ROOT=.* has no trossen_wx250s/wx250s\.xml"):
        make_env("lift")


def test_a_checkout_that_lacks_a_mesh_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mesh = write_checkout(tmp_path) / "trossen_wx250s" / "assets" / "wx250s_6_wrist.stl"
    mesh.unlink()
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs .*wx250s_6_wrist\.stl, which is not there"):
        make_env("lift")


def test_another_arm_in_that_file_is_refused_by_the_body_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_checkout(tmp_path) / "trossen_wx250s" / "wx250s.xml"
    path.write_text(path.read_text().replace("wx250s/wrist_link", "wx250s/hand"))
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    with pytest.raises(ConfigError, match="has no body wx250s/wrist_link"):
        make_env("lift")
