"""Variation of what the cameras see and nothing else: lights, surfaces, camera poses.

Each function changes the compiled model, from a random stream and a strength in (0, 1], and says
in words what it drew. It starts from nominal values, which `randomizer` restores before. Physics
and states stay the same to the bit.

Surfaces are chosen among materials that `add_textures` compiles into the scene: textures are
uploaded once, when a renderer is made, so an episode can switch to another but not draw a new one.
The sky is in neither camera's view; a wall behind the arm stands for the background instead.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import colorsys
import math

import mujoco
import numpy as np

from loopdit.envs.rotations import multiply, quaternion_of
from loopdit.envs.variation import varied_factor

TABLE, WALL = "table", "wall"
_WORKPLACE_M = np.array([0.26, 0.0, 0.02])
_LIGHT_MOVES_M = np.array([0.7, 0.7, 0.35])
_LIGHT_AIMS_M = 0.15
_BRIGHTNESS = (0.65, 1.3)
_LIGHT_TINT = 0.15

_AZIMUTH_RAD, _ELEVATION_RAD, _NEARER = 0.17, 0.10, 0.05
_LOOK_M = 0.012
_FOV = 0.05
_WRIST_M, _WRIST_RAD = 0.008, 0.07

_SURFACES = ("plain", "checks", "stripes", "grain", "speckles")
_TEXTURE_SIZE = 128
_TILES = 6  # of a texture along the table's 2.4 m
# Objects have saturated colours: a table that has none hides no object.
_SURFACE_SATURATION = 0.35
_SURFACE_BRIGHTNESS = (0.4, 0.85)
_ARM_BRIGHTNESS = (0.12, 0.6)
_WALL_M = -0.6
_WALL_SHARE = 0.7


def vary_lights(model: mujoco.MjModel, rng: np.random.Generator, strength: float) -> str:
    """Position, direction, brightness and colour of the lamp; brightness of the camera's own."""
    position = model.light_pos[0] + strength * rng.uniform(-1, 1, 3) * _LIGHT_MOVES_M
    aim = _WORKPLACE_M - position + strength * rng.uniform(-1, 1, 3) * _LIGHT_AIMS_M
    direction = model.light_dir[0] / np.linalg.norm(model.light_dir[0])
    direction += strength * (aim / np.linalg.norm(aim) - direction)
    lamp, ambient, frontal = (varied_factor(rng, _BRIGHTNESS, strength) for _ in range(3))
    tint = 1 + strength * rng.uniform(-_LIGHT_TINT, _LIGHT_TINT, 3)
    model.light_pos[0] = position
    model.light_dir[0] = direction / np.linalg.norm(direction)
    model.light_diffuse[0] *= lamp * tint
    model.vis.headlight.ambient[:] *= ambient * tint
    model.vis.headlight.diffuse[:] *= frontal
    where = " ".join(f"{value:.2f}" for value in position)
    return f"lamp at {where} m, lamp x{lamp:.2f}, ambient x{ambient:.2f}, frontal x{frontal:.2f}"


def vary_camera(model: mujoco.MjModel, rng: np.random.Generator, strength: float) -> str:
    """The front camera around what it looks at, the wrist camera in its mount, both lenses."""
    front, wrist = model.camera("front").id, model.camera("wrist").id
    look = model.body("look").id
    x, y, z = model.cam_pos[front] - model.body_pos[look]
    turn, lift = (strength * rng.uniform(-a, a) for a in (_AZIMUTH_RAD, _ELEVATION_RAD))
    azimuth, elevation = math.atan2(y, x) + turn, math.atan2(z, math.hypot(x, y)) + lift
    level = math.cos(elevation)
    ray = [level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation)]
    distance = math.sqrt(x * x + y * y + z * z) * (1 + strength * rng.uniform(-_NEARER, _NEARER))
    model.body_pos[look] += strength * rng.uniform(-_LOOK_M, _LOOK_M, 3)
    model.cam_pos[front] = model.body_pos[look] + distance * np.array(ray)
    model.cam_pos[wrist] += strength * rng.uniform(-_WRIST_M, _WRIST_M, 3)
    tilt = strength * rng.uniform(-_WRIST_RAD, _WRIST_RAD, 3)
    model.cam_quat[wrist] = multiply(model.cam_quat[wrist], quaternion_of(tilt))
    lenses = 1 + strength * rng.uniform(-_FOV, _FOV, 2)
    model.cam_fovy[[front, wrist]] *= lenses
    return (
        f"front turned {math.degrees(turn):.0f} and raised {math.degrees(lift):.0f} degrees, "
        f"{distance:.2f} m away, wrist tilted {math.degrees(np.linalg.norm(tilt)):.0f} degrees"
    )


def add_textures(scene: mujoco.MjSpec) -> None:
    """A material for each surface, and a wall behind the arm that is not seen until it is used."""
    for name in _SURFACES:
        material = scene.add_material(name=f"surface_{name}", reflectance=0.0)
        if name == "plain":
            continue
        texture = scene.add_texture(
            name=f"surface_{name}",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            nchannel=3,
            width=_TEXTURE_SIZE,
            height=_TEXTURE_SIZE,
        )
        texture.data = _pattern(name).tobytes()
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
        material.texrepeat = [_TILES, _TILES]
    scene.worldbody.add_geom(
        name=WALL,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.01, 1.2, 0.5],
        pos=[_WALL_M, 0.0, 0.5],
        rgba=[1.0, 1.0, 1.0, 0.0],
        contype=0,
        conaffinity=0,
    )


def vary_textures(model: mujoco.MjModel, rng: np.random.Generator, strength: float) -> str:
    """Pattern and colour of the table, a wall behind the arm or none, the arm's colour.

    `strength` is how far colours go, and how often there is a pattern or a wall.
    """
    table, wall, arm = model.geom(TABLE).id, model.geom(WALL).id, model.material("dark").id
    nominal = model.mat_rgba[model.geom_matid[table], :3].copy()
    pattern = rng.choice(_SURFACES) if rng.random() < strength else _SURFACES[0]
    colour = nominal + strength * (_surface_colour(rng, _SURFACE_BRIGHTNESS) - nominal)
    model.geom_matid[table] = model.material(f"surface_{pattern}").id
    model.geom_rgba[table, :3] = colour
    words = f"{pattern} on the table"

    wall_pattern, wall_colour = rng.choice(_SURFACES), _surface_colour(rng, _SURFACE_BRIGHTNESS)
    if rng.random() < strength * _WALL_SHARE:
        model.geom_matid[wall] = model.material(f"surface_{wall_pattern}").id
        model.geom_rgba[wall] = [*wall_colour, 1.0]
        words += f", {wall_pattern} on a wall"

    dark = model.mat_rgba[arm, :3]
    model.mat_rgba[arm, :3] = dark + strength * (_surface_colour(rng, _ARM_BRIGHTNESS) - dark)
    return words


def _surface_colour(rng: np.random.Generator, brightness: tuple[float, float]) -> np.ndarray:
    """(3,) RGB of any hue and little saturation."""
    hue, saturation = rng.random(), rng.uniform(0, _SURFACE_SATURATION)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(*brightness)))


def _pattern(name: str) -> np.ndarray:
    """(S, S, 3) uint8, grey: 1 is the surface's colour. It repeats without a seam."""
    rng = np.random.default_rng(0)  # part of the scene, not of an episode
    size = _TEXTURE_SIZE
    row, column = np.mgrid[:size, :size] * (2 * math.pi / size)
    if name == "checks":
        grey = 0.78 + 0.22 * np.sign(np.sin(2 * row) * np.sin(2 * column))
    elif name == "stripes":
        grey = 0.82 + 0.18 * np.sign(np.sin(5 * column))
    elif name == "grain":  # rings of wood: waves of a few lengths, bent along the board
        bent = 4 * column + 1.2 * np.sin(row) + 0.6 * np.sin(2 * row + column)
        grey = 0.80 + 0.12 * np.sin(bent) + 0.08 * np.sin(3 * bent + np.sin(3 * row))
    else:
        dots = rng.random((size // 4, size // 4)) < 0.12
        grey = 1 - 0.5 * np.kron(dots, np.ones((4, 4)))
    return np.repeat((255 * grey).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
