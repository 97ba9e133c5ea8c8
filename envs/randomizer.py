"""Makes each episode differ along the axes of `variation` that are on.

All it draws comes from the episode's seed by streams of its own, one an axis. So the task puts its
objects where it would without variation, and what `lights` draws does not depend on whether
`camera` is on: conditions can be compared seed by seed.

The compiled model is what varies, and it outlives the episode: `restore` puts back every field
that an axis may touch, so nothing drifts.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import mujoco
import numpy as np

from loopdit.envs.appearance import add_textures, vary_camera, vary_lights, vary_textures
from loopdit.envs.arm import Arm
from loopdit.envs.distractors import add_distractors, place_distractors
from loopdit.envs.dynamics import vary_friction, vary_mass
from loopdit.envs.variation import AXES, NONE, parse_variation

_STREAM = 0x76617279
# What the axes write, and what mj_setConst derives from it.
_FIELDS = (
    *("light_pos", "light_dir", "light_diffuse", "light_pos0", "light_poscom0", "light_dir0"),
    *("cam_pos", "cam_quat", "cam_fovy", "cam_pos0", "cam_poscom0", "cam_mat0"),
    *("geom_matid", "geom_rgba", "mat_rgba", "geom_friction", "geom_contype", "geom_conaffinity"),
    *("body_mass", "body_inertia", "body_gravcomp", "body_subtreemass", "body_invweight0"),
    *("dof_M0", "dof_invweight0", "actuator_acc0", "body_pos"),
)


class Randomizer:
    """Used in this order: `extend` the scene before it is compiled, `attach` to the arm in it, then
    for each episode `restore`, and after the task has placed its objects `draw`."""

    def __init__(self, variation: str) -> None:
        """Raises ConfigError for a text that is not one of `variation`."""
        self._strengths = parse_variation(variation)
        self._seeds = np.random.default_rng()

    def extend(self, scene: mujoco.MjSpec) -> None:
        """Add what the axes need to the scene. Nothing for axes that are off."""
        if not {"textures", "distractors"} & self._strengths.keys():
            return
        # MuJoCo measures the scene's extent and clips what is nearer to a camera than a share of
        # it: with a wall in the scene, half the gripper would be missing from the wrist camera.
        nominal = scene.compile().stat
        scene.stat.extent, scene.stat.center = nominal.extent, nominal.center
        if "textures" in self._strengths:
            add_textures(scene)
        if "distractors" in self._strengths:
            add_distractors(scene)

    def attach(self, arm: Arm) -> None:
        """Take the compiled model as the nominal one."""
        self._arm = arm
        model = arm.model
        headlight = model.vis.headlight
        varied = [getattr(model, name) for name in _FIELDS] if self._strengths else []
        varied += [headlight.ambient, headlight.diffuse]
        self._nominal = [(values, values.copy()) for values in varied]
        self._mean_inertia = float(model.stat.meaninertia)

    def restore(self) -> None:
        """The nominal model again."""
        for values, nominal in self._nominal:
            values[...] = nominal
        self._arm.model.stat.meaninertia = self._mean_inertia

    def draw(self, seed: int | None) -> str:
        """Vary the model for the episode `seed`; without one, for the next after the last seed.

        Returns what was drawn, in words.
        """
        if seed is not None:
            self._seeds = np.random.default_rng([_STREAM, seed])
        else:
            seed = int(self._seeds.integers(2**62))
        words = [f"{axis}: {self._vary(axis, seed)}" for axis in self._strengths]
        return "; ".join(words) or NONE

    def _vary(self, axis: str, seed: int) -> str:
        rng = np.random.default_rng([_STREAM, AXES.index(axis), seed])
        strength = self._strengths[axis]
        if axis == "distractors":
            return place_distractors(self._arm, rng, strength)
        return _ON_MODEL[axis](self._arm.model, rng, strength)


_ON_MODEL = {
    "lights": vary_lights,
    "textures": vary_textures,
    "camera": vary_camera,
    "friction": vary_friction,
    "mass": vary_mass,
}
