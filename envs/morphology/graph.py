"""The kinematic tree of any compiled MuJoCo model: what its bodies are, and how far they are apart.

N bodies, in MuJoCo's order, without the world: it has no mass and moves nothing, but paths lead
through it, so two things that stand beside each other are 2 apart (MuJoCo's tree has one root).
Features (N, F) float32 as FEATURES names them, of order 1: lengths in metres as they are, masses
and torques as logarithms. They are of the model alone, none of its state. Distances (N, N) int64
count the edges of the shortest path, at most FARTHEST.

Also which body each joint moves, and which joint and body each motor acts on. Where a motor pulls a
tendon, that is the tendon's first joint; where it acts on no joint, NO_JOINT.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

from dataclasses import dataclass

import mujoco
import numpy as np

FARTHEST = 8
NO_JOINT = -1
FEATURES = (
    "mass: log10 kg",
    *(f"radius of gyration about principal axis {axis}: m" for axis in "123"),
    *(f"place in the parent's frame, {axis}: m" for axis in "xyz"),
    *(f"half of the box around its geometry, {axis}: m" for axis in "xyz"),
    *(f"joints of type {kind}: number" for kind in ("free", "ball", "slide", "hinge")),
    *(f"mean axis of slides and hinges, {axis}: unit vectors" for axis in "xyz"),
    "mean lower limit of its limited joints: half turns or m",
    "mean upper limit of its limited joints: half turns or m",
    "joints with limits: share",
    "greatest force of its motors: log10(1 + N m or N) / 2",
    "edges to the world: number / 8",
    "bodies that hang on it: number / 4",
)
_LEAST_KG = 1e-3
_WRAPPED_JOINT = mujoco.mjtWrap.mjWRAP_JOINT
# As numbers: MuJoCo's enums do not equal what its arrays hold.
_FREE, _BALL, _SLIDE, _HINGE = (
    int(kind)
    for kind in (
        mujoco.mjtJoint.mjJNT_FREE,
        mujoco.mjtJoint.mjJNT_BALL,
        mujoco.mjtJoint.mjJNT_SLIDE,
        mujoco.mjtJoint.mjJNT_HINGE,
    )
)
_ENDLESS = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))


@dataclass(frozen=True)
class BodyGraph:
    """One model's bodies, and what acts on them; see above. `names` (N,) may be empty.

    `joint_body` (J,) and `motor_body` (A,) index the N bodies, `motor_joint` (A,) the J joints.
    """

    names: tuple[str, ...]
    features: np.ndarray
    distances: np.ndarray
    joint_body: np.ndarray
    motor_joint: np.ndarray
    motor_body: np.ndarray


def body_graph(model: mujoco.MjModel) -> BodyGraph:
    """The graph of a compiled model."""
    motor_joint = np.array([_joint_of(model, i) for i in range(model.nu)], int)
    motor_body = np.array([_body_of(model, i, j) for i, j in enumerate(motor_joint)], int)
    return BodyGraph(
        names=tuple(model.body(i).name for i in range(1, model.nbody)),
        features=_features(model, motor_body),
        distances=_distances(model)[1:, 1:],
        joint_body=model.jnt_bodyid.astype(int) - 1,
        motor_joint=motor_joint,
        motor_body=motor_body - 1,
    )


def _distances(model: mujoco.MjModel) -> np.ndarray:
    """(bodies, bodies), the world with them."""
    distances = np.zeros((model.nbody, model.nbody), int)
    for body in range(1, model.nbody):  # a parent comes before its children
        before = distances[model.body_parentid[body], :body] + 1
        distances[body, :body] = before
        distances[:body, body] = before
    return np.minimum(distances, FARTHEST)


def _features(model: mujoco.MjModel, motor_body: np.ndarray) -> np.ndarray:
    """(N, F); `motor_body` counts the world."""
    forces = np.array([_greatest_force(model, i) for i in range(model.nu)])
    depths = np.zeros(model.nbody)
    rows = np.zeros((model.nbody, len(FEATURES)), np.float32)
    for body in range(1, model.nbody):
        parent = model.body_parentid[body]
        depths[body] = depths[parent] + 1
        mass = model.body_mass[body]
        joints = np.flatnonzero(model.jnt_bodyid == body)
        rows[body] = np.concatenate(
            [
                [np.log10(max(mass, _LEAST_KG))],
                np.sqrt(model.body_inertia[body] / max(mass, _LEAST_KG)),
                model.body_pos[body],
                _half_box(model, body),
                [
                    np.count_nonzero(model.jnt_type[joints] == kind)
                    for kind in (_FREE, _BALL, _SLIDE, _HINGE)
                ],
                _mean_axis(model, joints),
                _limits(model, joints),
                [np.log10(1 + forces[motor_body == body].sum()) / 2],
                [depths[body] / 8, np.count_nonzero(model.body_parentid[1:] == body) / 4],
            ]
        )
    return rows[1:]


def _half_box(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Half the edges (3,) of the box around the body's geoms, along its own axes."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for geom in np.flatnonzero(model.geom_bodyid == body):
        if model.geom_type[geom] in _ENDLESS:
            continue
        turned = np.zeros(9)
        mujoco.mju_quat2Mat(turned, model.geom_quat[geom])
        rotation = turned.reshape(3, 3)
        centre = model.geom_pos[geom] + rotation @ model.geom_aabb[geom, :3]
        half = np.abs(rotation) @ model.geom_aabb[geom, 3:]
        low, high = np.minimum(low, centre - half), np.maximum(high, centre + half)
    return (high - low) / 2 if np.isfinite(low).all() else np.zeros(3)


def _mean_axis(model: mujoco.MjModel, joints: np.ndarray) -> np.ndarray:
    """(3,), zeros where no joint has an axis."""
    turning = joints[np.isin(model.jnt_type[joints], (_SLIDE, _HINGE))]
    return model.jnt_axis[turning].mean(0) if len(turning) else np.zeros(3)


def _limits(model: mujoco.MjModel, joints: np.ndarray) -> np.ndarray:
    """Mean lower and upper limit of those that have them, and their share: (3,)."""
    limited = joints[model.jnt_limited[joints] != 0]
    if not len(limited):
        return np.zeros(3)
    slides = model.jnt_type[limited] == _SLIDE
    unit = np.where(slides, 1.0, np.pi)[:, None]
    return np.append((model.jnt_range[limited] / unit).mean(0), len(limited) / len(joints))


def _greatest_force(model: mujoco.MjModel, motor: int) -> float:
    """What it can exert, by its limit where it has one, else by its gear and greatest control."""
    gear = float(np.abs(model.actuator_gear[motor]).max())
    if model.actuator_forcelimited[motor]:
        return gear * float(np.abs(model.actuator_forcerange[motor]).max())
    control = model.actuator_ctrlrange[motor] if model.actuator_ctrllimited[motor] else [1.0]
    return gear * float(np.abs(model.actuator_gainprm[motor, 0]) * np.abs(control).max())


def _transmission(model: mujoco.MjModel, motor: int) -> tuple[mujoco.mjtTrn, int]:
    """Its kind, and the number of what it acts on."""
    return mujoco.mjtTrn(model.actuator_trntype[motor]), int(model.actuator_trnid[motor, 0])


def _joint_of(model: mujoco.MjModel, motor: int) -> int:
    kind, target = _transmission(model, motor)
    if kind in (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT):
        return target
    if kind == mujoco.mjtTrn.mjTRN_TENDON:
        start = model.tendon_adr[target]
        wraps = range(start, start + model.tendon_num[target])
        joints = [w for w in wraps if model.wrap_type[w] == int(mujoco.mjtWrap.mjWRAP_JOINT)]
        if joints:
            return int(model.wrap_objid[joints[0]])
    return NO_JOINT


def _body_of(model: mujoco.MjModel, motor: int, joint: int) -> int:
    """Of the model's bodies; where nothing better is known, the first below the world."""
    if joint != NO_JOINT:
        return int(model.jnt_bodyid[joint])
    kind, target = _transmission(model, motor)
    if kind in (mujoco.mjtTrn.mjTRN_SITE, mujoco.mjtTrn.mjTRN_SLIDERCRANK):
        return int(model.site_bodyid[target])
    return target if kind == mujoco.mjtTrn.mjTRN_BODY else 1
