"""The things that tasks put on the table, as bodies added to a scene's MuJoCo spec.

A prop's body, joint and geom share its name. Sizes in metres, masses in kg. Free bodies start
below the table, where nothing sees or touches them: a task places them at each reset.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import math
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
    _add_free(scene, name, _BOX, [half_edge_m] * 3, rgb, mass_kg)


def add_marker(scene: mujoco.MjSpec, name: str, shape: int, size: Sequence[float]) -> None:
    """A green mark that is seen and never touched; `shape` is a mujoco.mjtGeom. A mocap body."""
    body = scene.worldbody.add_body(name=name, pos=_STORED, mocap=True)
    body.add_geom(
        name=name, type=shape, size=list(size), rgba=[*GREEN, 0.8], contype=0, conaffinity=0
    )


BOWL_RADIUS_M = 0.055
BOWL_HEIGHT_M = 0.03
BOWL_FLOOR_M = 0.008
_YELLOW = (0.90, 0.85, 0.30)
_BOWL_SIDES = 12
_BOWL_WALL_M = 0.004


def add_bowl(scene: mujoco.MjSpec, name: str) -> None:
    """A shallow bowl that nothing moves: a floor, and a wall of twelve boards. A mocap body."""
    body = scene.worldbody.add_body(name=name, pos=_STORED, mocap=True)
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[BOWL_RADIUS_M, BOWL_FLOOR_M / 2, 0.0],
        pos=[0.0, 0.0, BOWL_FLOOR_M / 2],
        rgba=[*_YELLOW, 1.0],
    )
    half_width = BOWL_RADIUS_M * math.tan(math.pi / _BOWL_SIDES) + 0.001
    for side in range(_BOWL_SIDES):
        angle = 2 * math.pi * side / _BOWL_SIDES
        x, y = BOWL_RADIUS_M * math.cos(angle), BOWL_RADIUS_M * math.sin(angle)
        body.add_geom(
            type=_BOX,
            size=[_BOWL_WALL_M, half_width, BOWL_HEIGHT_M / 2],
            pos=[x, y, BOWL_HEIGHT_M / 2],
            quat=[math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)],
            rgba=[*_YELLOW, 1.0],
        )


def add_ball(
    scene: mujoco.MjSpec, name: str, radius_m: float, rgb: Sequence[float], mass_kg: float = 0.03
) -> None:
    """A free ball. Four contact dimensions, so without rolling friction: it rolls on and on."""
    _add_free(scene, name, mujoco.mjtGeom.mjGEOM_SPHERE, [radius_m, 0.0, 0.0], rgb, mass_kg)


def _add_free(
    scene: mujoco.MjSpec,
    name: str,
    shape: int,
    size: Sequence[float],
    rgb: Sequence[float],
    mass_kg: float,
) -> None:
    """A body that moves freely, of one geom."""
    body = scene.worldbody.add_body(name=name, pos=_STORED)
    body.add_freejoint(name=name)
    body.add_geom(
        scene.find_default("object"),
        name=name,
        type=shape,
        size=list(size),
        mass=mass_kg,
        rgba=[*rgb, 1.0],
    )


DRAWER_TRAVEL_M = 0.14
_DRAWER_HANDLE_M = (0.075, 0.048)  # before the drawer's origin, and above the table
DRAWER_GAP_M = 0.050  # the middle of the gap between handle and front, before the drawer's origin
_WOOD = (0.50, 0.32, 0.18)
_LIGHT_WOOD = (0.80, 0.66, 0.45)
_DARK = (0.20, 0.21, 0.24)


def add_drawer(scene: mujoco.MjSpec, cabinet: str, drawer: str, handle: str) -> None:
    """A cabinet (a mocap body) and the drawer in it, which slides out towards the cabinet's -x.

    The handle is an upright bar 7 cm wide, with room for two fingers behind it.
    """
    body = scene.worldbody.add_body(name=cabinet, pos=_STORED, mocap=True)
    for y in (-0.074, 0.074):
        _add_part(body, [0.050, 0.004, 0.045], [0.030, y, 0.045], _WOOD)
    _add_part(body, [0.050, 0.078, 0.004], [0.030, 0.0, 0.094], _WOOD)
    _add_part(body, [0.004, 0.070, 0.045], [0.076, 0.0, 0.045], _WOOD)
    height = _DRAWER_HANDLE_M[1]
    inner = body.add_body(name=drawer, pos=[0.0, 0.0, height])
    inner.add_joint(
        name=drawer,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[-1.0, 0.0, 0.0],
        range=[0.0, DRAWER_TRAVEL_M],
        damping=8.0,
        frictionloss=2.0,
        armature=0.05,
    )
    _add_part(inner, [0.005, 0.068, 0.036], [-0.025, 0.0, 0.0], _LIGHT_WOOD)
    _add_part(inner, [0.045, 0.062, 0.003], [0.025, 0.0, -0.033], _LIGHT_WOOD)
    _add_part(inner, [0.004, 0.035, 0.012], [-_DRAWER_HANDLE_M[0], 0.0, 0.0], _DARK, handle)
    for y in (-0.032, 0.032):
        _add_part(inner, [0.024, 0.003, 0.004], [-0.052, y, 0.0], _DARK)


BUTTON_HEIGHT_M = 0.045
BUTTON_TRAVEL_M = 0.012
_BUTTON_RADIUS_M = 0.018


def add_button(scene: mujoco.MjSpec, housing: str, button: str) -> None:
    """A push button: a housing (a mocap body) and a sprung cap that yields to 1 to 4 N."""
    body = scene.worldbody.add_body(name=housing, pos=_STORED, mocap=True)
    _add_part(body, [0.032, 0.032, 0.015], [0.0, 0.0, 0.015], _LIGHT_WOOD)
    cap = body.add_body(name=button, pos=[0.0, 0.0, BUTTON_HEIGHT_M])
    cap.add_joint(
        name=button,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0.0, 0.0, -1.0],
        range=[0.0, BUTTON_TRAVEL_M],
        stiffness=250.0,
        springref=-0.004,
        damping=3.0,
        armature=0.01,
    )
    cap.add_geom(
        name=button,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[_BUTTON_RADIUS_M, 0.010, 0.0],
        pos=[0.0, 0.0, -0.010],
        mass=0.01,
        rgba=[*RED, 1.0],
        contype=0,
    )


def _add_part(
    body: mujoco.MjsBody,
    half_sizes_m: Sequence[float],
    position_m: Sequence[float],
    rgb: Sequence[float],
    name: str = "",
) -> None:
    """A box of a piece of furniture: fingers and objects meet it, other furniture does not."""
    body.add_geom(
        name=name,
        type=_BOX,
        size=list(half_sizes_m),
        pos=list(position_m),
        mass=0.1,
        rgba=[*rgb, 1.0],
        contype=0,
    )
