"""The things that tasks put on the table, as bodies added to a scene's MuJoCo spec.

A prop's body, joint and geom share its name. Sizes in metres, masses in kg. Free bodies start
below the table, where nothing sees or touches them: a task places them at each reset.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

from collections.abc import Sequence

import mujoco

RED = (0.85, 0.15, 0.12)
BLUE = (0.15, 0.30, 0.85)
GREEN = (0.10, 0.80, 0.20)
_STORED = (0.0, 0.0, -1.0)
_BOX = mujoco.mjtGeom.mjGEOM_BOX


def add_cube(
    scene: mujoco.MjSpec, name: str, half_edge_m: float, rgb: Sequence[float], mass_kg: float = 0.04
) -> None:
    """A free cube."""
    body = scene.worldbody.add_body(name=name, pos=_STORED)
    body.add_freejoint(name=name)
    body.add_geom(
        scene.find_default("object"),
        name=name,
        type=_BOX,
        size=[half_edge_m] * 3,
        mass=mass_kg,
        rgba=[*rgb, 1.0],
    )


def add_marker(scene: mujoco.MjSpec, name: str, shape: int, size: Sequence[float]) -> None:
    """A green mark that is seen and never touched; `shape` is a mujoco.mjtGeom. A mocap body."""
    body = scene.worldbody.add_body(name=name, pos=_STORED, mocap=True)
    body.add_geom(
        name=name, type=shape, size=list(size), rgba=[*GREEN, 0.8], contype=0, conaffinity=0
    )
