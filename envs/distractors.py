"""Things on the table that have nothing to do with the task: of other shapes and other colours.

They are free bodies that collide. A place for one is found from geometry alone, whatever the task
is: away from every geom and site that is not the arm's, from where those can move (along their
slide joints, and on with their present velocity), from the ways between them, and out of the front
camera's sight of them. All are lower than the gripper's start.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

from dataclasses import dataclass, field

import mujoco
import numpy as np

from loopdit.envs.appearance import TABLE, WALL
from loopdit.envs.arm import Arm
from loopdit.envs.arm_scene import ARM_ROOT

PREFIX = "distractor_"
MAX_COUNT = 4
_BOX, _CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
_ELLIPSOID = mujoco.mjtGeom.mjGEOM_ELLIPSOID
# Name, geoms as (shape, size, position), in metres above the table. None is a cube, a ball or a
# bowl, and none rolls away.
_SHAPES = {
    "brick": [(_BOX, (0.034, 0.014, 0.012), (0, 0, 0.012))],
    "pillar": [(_BOX, (0.012, 0.012, 0.034), (0, 0, 0.034))],
    "can": [(_CYLINDER, (0.017, 0.026, 0), (0, 0, 0.026))],
    "disc": [(_CYLINDER, (0.028, 0.007, 0), (0, 0, 0.007))],
    "angle": [
        (_BOX, (0.030, 0.010, 0.011), (0, -0.015, 0.011)),
        (_BOX, (0.010, 0.015, 0.011), (-0.020, 0.010, 0.011)),
    ],
    "pebble": [(_ELLIPSOID, (0.030, 0.020, 0.012), (0, 0, 0.012))],
}
_TALLEST_M = 0.068
_MASS_KG = 0.06
# None is a task's red, blue or green; those too near to another colour of the task stay away.
_PALETTE = np.array(
    [
        (0.95, 0.82, 0.15),
        (0.52, 0.18, 0.62),
        (0.15, 0.70, 0.75),
        (0.95, 0.52, 0.10),
        (0.95, 0.58, 0.72),
        (0.93, 0.93, 0.92),
        (0.10, 0.10, 0.11),
        (0.40, 0.26, 0.15),
        (0.50, 0.50, 0.20),
    ]
)
_OTHER_COLOUR = 0.42  # least distance of two colours in RGB

_NEAREST_M, _FARTHEST_M, _AZIMUTH_RAD = 0.17, 0.40, 0.62
_ROOM_M = 0.045  # around the task's things: for open fingers, which reach 4 cm from their middle
_WAY_M = 0.035  # on either side of a way: half a cube and a little
_APART_M = 0.015  # between two of them
_SIGHT_M = 0.015
_ROLLING_S = 4.0
_TABLE_M = 0.9  # nothing farther out than this matters
_STEP_M = 0.02
_TRIES = 100


def add_distractors(scene: mujoco.MjSpec) -> None:
    """Every shape once, for `place_distractors` to choose from."""
    for name, geoms in _SHAPES.items():
        body = scene.worldbody.add_body(name=f"{PREFIX}{name}", pos=(0.0, 0.0, -1.0))
        body.add_freejoint(name=f"{PREFIX}{name}")
        for shape, size, position in geoms:
            body.add_geom(
                scene.find_default("object"),
                type=shape,
                size=size,
                pos=position,
                mass=_MASS_KG / len(geoms),
            )


def place_distractors(arm: Arm, rng: np.random.Generator, strength: float) -> str:
    """One to `strength` times four of them, after the task has put its own things down.

    Fewer where there is no room. The others hang below the table, touching nothing.
    """
    model = arm.model
    # Where things are, and no more: forces would count the distractors, which are not placed yet.
    mujoco.mj_kinematics(model, arm.data)
    mujoco.mj_camlight(model, arm.data)
    names = list(rng.permutation(list(_SHAPES)))
    wanted = int(rng.integers(1, max(1, round(strength * MAX_COUNT)) + 1))
    colours = rng.permutation(_other_colours(model))
    kept_free = _kept_free(arm)
    placed: list[str] = []
    for index, name in enumerate(names):
        body = model.body(f"{PREFIX}{name}")
        geoms = np.arange(body.geomadr[0], body.geomadr[0] + body.geomnum[0])
        radius = _footprint_radius(model, geoms)
        spot = _free_spot(kept_free, radius, rng) if len(placed) < wanted else None
        yaw = rng.uniform(-np.pi, np.pi)
        if spot is None:
            _store(arm, body.name, geoms)
            continue
        arm.place(body.name, np.array([*spot, 0.0005]), yaw)
        model.geom_rgba[geoms, :3] = colours[index % len(colours)]
        kept_free.add(spot, spot, radius + _APART_M)
        placed.append(name)
    return ", ".join(placed) or "none: no room"


@dataclass
class KeptFree:
    """Rectangles on the table (x and y in metres), each with the room to leave around it."""

    lows: list[np.ndarray] = field(default_factory=list[np.ndarray])
    highs: list[np.ndarray] = field(default_factory=list[np.ndarray])
    rooms: list[float] = field(default_factory=list[float])

    def add(self, low: np.ndarray, high: np.ndarray, room: float) -> None:
        """One rectangle from `low` (2,) to `high` (2,)."""
        self.lows.append(low)
        self.highs.append(high)
        self.rooms.append(room)

    def add_sweep(self, low: np.ndarray, high: np.ndarray, way: np.ndarray, room: float) -> None:
        """A rectangle and everywhere it comes to on a straight `way` (2,)."""
        steps = int(np.linalg.norm(way) / _STEP_M) + 1
        for share in np.linspace(0, 1, steps + 1):
            self.add(low + share * way, high + share * way, room)

    def admits(self, spots: np.ndarray, radius: float) -> np.ndarray:
        """Whether a disc around each of `spots` (N, 2) leaves every rectangle its room, (N,)."""
        lows, highs = np.array(self.lows), np.array(self.highs)
        outside = np.maximum(lows - spots[:, None], spots[:, None] - highs)  # (N, rectangles, 2)
        gaps = np.linalg.norm(np.maximum(outside, 0), axis=2)
        return (gaps > np.array(self.rooms) + radius).all(axis=1)


def _kept_free(arm: Arm) -> KeptFree:
    model, data = arm.model, arm.data
    found = KeptFree()
    centres: dict[int, np.ndarray] = {}
    front = data.cam_xpos[model.camera("front").id]
    for geom in task_geoms(model):
        low, high = _bounds(model, data, geom)
        if high[2] < -0.05 or np.abs(low[:2] + high[:2]).max() / 2 > _TABLE_M:
            continue  # stored away
        body = int(model.geom_bodyid[geom])
        for way in _ways_of(model, data, body):
            found.add_sweep(low[:2], high[:2], way, _ROOM_M)
        middle = (low + high) / 2
        if body:
            centres.setdefault(int(model.body_rootid[body]), middle[:2])
        # The line from the front camera passes above all of them except near the geom.
        rise = (front - middle)[:2] / max(front[2] - middle[2], 1e-6)
        sight = rise * max(_TALLEST_M - middle[2], 0.0)
        found.add_sweep(middle[:2], middle[:2], sight, _SIGHT_M)
    for site in range(model.nsite):
        if model.body_rootid[model.site_bodyid[site]] != model.body(ARM_ROOT).id:
            spot = data.site_xpos[site, :2].copy()
            found.add(spot, spot, _ROOM_M)
    start = arm.reference_position[:2]
    spots = [start, *centres.values()]
    for index, one in enumerate(spots):
        for other in spots[index + 1 :]:
            found.add_sweep(one, one, other - one, _WAY_M)
    return found


def task_geoms(model: mujoco.MjModel) -> list[int]:
    """The geoms that are neither the arm's, nor distractors, nor the table or the wall."""
    arm = model.body(ARM_ROOT).id
    return [
        geom
        for geom in range(model.ngeom)
        if model.body_rootid[model.geom_bodyid[geom]] != arm
        and not model.body(model.geom_bodyid[geom]).name.startswith(PREFIX)
        and model.geom(geom).name not in (TABLE, WALL)
    ]


def _ways_of(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> list[np.ndarray]:
    """Where a body may go from its present place: displacements (2,) m, the first one zero."""
    ways = [np.zeros(2)]
    while body:
        for joint in range(
            model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]
        ):
            kind, dof = int(model.jnt_type[joint]), model.jnt_dofadr[joint]
            if kind == int(mujoco.mjtJoint.mjJNT_FREE):
                ways.append(data.qvel[dof : dof + 2] * _ROLLING_S)
            elif kind == int(mujoco.mjtJoint.mjJNT_SLIDE) and model.jnt_limited[joint]:
                travel = model.jnt_range[joint] - data.qpos[model.jnt_qposadr[joint]]
                ways += [limit * data.xaxis[joint, :2] for limit in travel]
        body = int(model.body_parentid[body])
    return ways


def _bounds(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> tuple[np.ndarray, np.ndarray]:
    """The box (3,), (3,) along the world's axes around a geom."""
    centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    turn = data.geom_xmat[geom].reshape(3, 3)
    middle, reach = data.geom_xpos[geom] + turn @ centre, np.abs(turn) @ half
    return middle - reach, middle + reach


def _footprint_radius(model: mujoco.MjModel, geoms: np.ndarray) -> float:
    """Of the disc around the body's axis that has all of it, however it is turned."""
    corners = np.abs(model.geom_pos[geoms, :2]) + model.geom_aabb[geoms, 3:5]
    return float(np.linalg.norm(corners, axis=1).max())


def _free_spot(kept_free: KeptFree, radius: float, rng: np.random.Generator) -> np.ndarray | None:
    distance = rng.uniform(_NEAREST_M, _FARTHEST_M, _TRIES)
    azimuth = rng.uniform(-_AZIMUTH_RAD, _AZIMUTH_RAD, _TRIES)
    spots = distance[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    free = np.flatnonzero(kept_free.admits(spots, radius))
    return spots[free[0]] if len(free) else None


def _other_colours(model: mujoco.MjModel) -> np.ndarray:
    """The colours (N, 3) of the palette that are not like one of the task's."""
    geoms = task_geoms(model)
    materials = model.geom_matid[geoms]
    own = model.geom_rgba[geoms, :3].copy()
    own[materials >= 0] = model.mat_rgba[materials[materials >= 0], :3]
    apart = np.linalg.norm(_PALETTE[:, None] - own[None], axis=2)  # (palette, geoms)
    return _PALETTE[(apart > _OTHER_COLOUR).all(axis=1)]


def _store(arm: Arm, name: str, geoms: np.ndarray) -> None:
    """Below the table. The table is a half space, so what is there must neither touch nor fall."""
    arm.place(name, np.array([0.0, 0.0, -1.0]), 0.0)
    arm.model.geom_contype[geoms] = 0
    arm.model.geom_conaffinity[geoms] = 0
    arm.model.body_gravcomp[arm.model.body(name).id] = 1.0
