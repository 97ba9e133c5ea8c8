"""The arm dressed with the real WidowX 250s meshes, where MENAGERIE_ROOT has them.

MENAGERIE_ROOT names a checkout of MuJoCo Menagerie (github.com/google-deepmind/mujoco_menagerie);
nothing is downloaded. Of its trossen_wx250s/wx250s.xml only what is seen is taken: the visual
geoms of each body with their meshes, materials and textures. Joints, masses and what collides stay
those of `arm_scene`, whose own shapes become invisible: states are the same to the bit.

Not verified for want of the real meshes, only with a small stand-in of the same structure: whether
the meshes meet the pads (`_FINGER_M`), and whether the wrist camera, placed for the built-in
shapes, looks past the gripper's mesh. Orientations given as anything but quaternions are not read.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import os
from pathlib import Path

import mujoco
import numpy as np

from loopdit.errors import ConfigError

MENAGERIE_ROOT = "MENAGERIE_ROOT"
_MODEL = Path("trossen_wx250s") / "wx250s.xml"
_PREFIX = "wx250s/"
# Menagerie's body -> ours. Each pair has the same frame: their kinematic trees are equal.
_BODIES = {
    "base_link": "base",
    "shoulder_link": "shoulder_link",
    "upper_arm_link": "upper_arm",
    "upper_forearm_link": "forearm",
    "lower_forearm_link": "forearm2",
    "wrist_link": "wrist",
    "gripper_link": "gripper",
    "left_finger_link": "left",
    "right_finger_link": "right",
}
# The real fingers' inner faces are at y = -+0.0096 m of their bodies and close at 15 mm of travel;
# our pads' are at -+0.001 m and close at 0. This moves the meshes out to where the pads are.
_FINGER_M = {"left": 0.0086, "right": -0.0086}
_SHOWN_GROUPS = range(3)  # MuJoCo's viewers and renderers hide groups 3 to 5
_MESH = mujoco.mjtGeom.mjGEOM_MESH


def menagerie_root() -> Path | None:
    """The checkout that the environment variable MENAGERIE_ROOT names, None where it is not set."""
    named = os.environ.get(MENAGERIE_ROOT)
    return Path(named) if named else None


def dress(scene: mujoco.MjSpec, root: Path) -> None:
    """Show the meshes of the checkout `root` in place of the arm's own shapes.

    Before the scene is compiled. Raises ConfigError for a checkout that lacks the model, one of
    its bodies or one of its files.
    """
    path = root / _MODEL
    if not path.is_file():
        raise ConfigError(
            f"{MENAGERIE_ROOT}={root} has no {_MODEL}. Set it to a checkout of "
            "google-deepmind/mujoco_menagerie, or unset it for the built-in shapes."
        )
    try:
        real = mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise ConfigError(f"{path}, named by {MENAGERIE_ROOT}, cannot be read: {error}") from error
    wardrobe = _Wardrobe(scene, real, path)
    for theirs, ours in _BODIES.items():
        body = scene.body(ours)
        for geom in body.geoms:
            # Without its material, which would make it visible again.
            geom.material, geom.rgba = "", [0.0, 0.0, 0.0, 0.0]
        outward = _FINGER_M.get(ours, 0.0)
        for geom in _visual_geoms(real, theirs, path):
            body.add_geom(
                type=_MESH,
                meshname=wardrobe.mesh(geom.meshname),
                material=wardrobe.material(geom.material),
                rgba=geom.rgba,
                pos=np.add(geom.pos, [0.0, outward, 0.0]),
                quat=geom.quat,
                contype=0,
                conaffinity=0,
                mass=0.0,
                group=geom.group,
            )


def _visual_geoms(real: mujoco.MjSpec, name: str, path: Path) -> list[mujoco.MjsGeom]:
    """The meshes that are seen of the body `name`, with or without Menagerie's prefix."""
    body = real.body(_PREFIX + name) or real.body(name)
    if body is None:
        raise ConfigError(
            f"{path} has no body {_PREFIX}{name}: it is not the arm that {MENAGERIE_ROOT} is "
            "for. Unset it for the built-in shapes."
        )
    return [geom for geom in body.geoms if geom.type == _MESH and geom.group in _SHOWN_GROUPS]


class _Wardrobe:
    """Copies meshes, materials and textures of `real` into `scene`, each when it is first used."""

    def __init__(self, scene: mujoco.MjSpec, real: mujoco.MjSpec, path: Path) -> None:
        self._scene = scene
        self._path = path
        self._folders = (real.meshdir, real.texturedir)
        self._meshes = {_name(mesh): mesh for mesh in real.meshes}
        self._materials = {material.name: material for material in real.materials}
        self._textures = {_name(texture): texture for texture in real.textures}

    def mesh(self, name: str) -> str:
        """The name, in the scene, of a copy of a mesh."""
        copied = _PREFIX + name
        if self._scene.mesh(copied) is None:
            mesh = self._meshes[name]
            self._scene.add_mesh(
                name=copied,
                file=self._file(mesh.file, self._folders[0]),
                scale=mesh.scale,
                refpos=mesh.refpos,
                refquat=mesh.refquat,
                inertia=mesh.inertia,
                smoothnormal=mesh.smoothnormal,
            )
        return copied

    def material(self, name: str) -> str:
        """The name, in the scene, of a copy of a material; "" for none."""
        copied = _PREFIX + name
        if name and self._scene.material(copied) is None:
            material = self._materials[name]
            copy = self._scene.add_material(
                name=copied,
                rgba=material.rgba,
                specular=material.specular,
                shininess=material.shininess,
                texrepeat=material.texrepeat,
                texuniform=material.texuniform,
            )
            for role, texture in enumerate(material.textures):
                if texture:
                    copy.textures[role] = self._texture(texture)
        return copied if name else ""

    def _texture(self, name: str) -> str:
        copied = _PREFIX + name
        if self._scene.texture(copied) is None:
            texture = self._textures[name]
            file = self._file(texture.file, self._folders[1])
            self._scene.add_texture(name=copied, type=texture.type, file=file)
        return copied

    def _file(self, file: str, folder: str) -> str:
        found = (self._path.parent / folder / file).resolve()
        if not found.is_file():
            raise ConfigError(
                f"{self._path} needs {found}, which is not there: the checkout that "
                f"{MENAGERIE_ROOT} names is not whole. Complete it, or unset {MENAGERIE_ROOT}."
            )
        return str(found)


def _name(asset: mujoco.MjsMesh | mujoco.MjsTexture) -> str:
    """An asset without a name of its own has its file's."""
    return asset.name or Path(asset.file).stem
