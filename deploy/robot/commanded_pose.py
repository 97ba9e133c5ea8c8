"""The commanded pose that actions add up to, where their elements are shifts of it.

An action of a delta end-effector policy is not a place but a step: dx dy dz [m] and a rotation
vector drx dry drz [rad] in the base frame, relative to what was commanded before. Executed in
another order, or from another place, the same steps lead elsewhere. As poses they do not: `Shifts`
turns steps into poses and back, so that chunks can be compared, joined and limited by where they
lead.

Which elements are shifts is told by the labels of the action; all others (a gripper's opening, a
joint's position) say where to be already, and are left as they are. Numpy only.

Shapes: n actions, A action dim. A pose is a row (A + 9,): the action's elements, its translations
summed up from an arbitrary zero, its rotation vector replaced by 0, then the commanded rotation
matrix, row by row, from an arbitrary frame too.
"""

import math
from dataclasses import replace

import numpy as np

from loopdit.datasets.tensor_spec import TensorSpec

TRANSLATION = ("dx", "dy", "dz")
ROTATION = ("drx", "dry", "drz")
_ROTATION_SIZE = 9


class Shifts:
    """Which elements of an action are shifts, from its labels (see `TensorSpec.labels`)."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.size = len(labels)
        self.translation = [labels.index(label) for label in TRANSLATION if label in labels]
        turns = [labels.index(label) for label in ROTATION if label in labels]
        # Some of the three alone are no rotation vector: they are left as they are.
        self.rotation = turns if len(turns) == len(ROTATION) else []

    def __bool__(self) -> bool:
        """Whether any element is a shift."""
        return bool(self.translation or self.rotation)

    @property
    def elements(self) -> list[int]:
        """The indices of all that are shifts."""
        return [*self.translation, *self.rotation]

    def start(self) -> np.ndarray:
        """The pose (A + 9,) that poses are counted from."""
        return np.concatenate([np.zeros(self.size), np.eye(3).ravel()])

    def poses(self, start: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Where actions (n, A), one after the other from pose `start`, lead: (n, A + 9)."""
        poses = np.empty((len(actions), self.size + _ROTATION_SIZE))
        poses[:, : self.size] = actions
        poses[:, self.translation] = start[self.translation] + np.cumsum(
            actions[:, self.translation], axis=0, dtype=float
        )
        turned = _rotation(start)
        for index, action in enumerate(actions):
            if self.rotation:
                turned = rotation_matrix(action[self.rotation]) @ turned
            poses[index, self.size :] = turned.ravel()
        poses[:, self.rotation] = 0.0
        return poses

    def action(self, pose: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The action (A,) float32 that leads from `pose` to the pose `wanted`."""
        action = wanted[: self.size].copy()
        action[self.translation] -= pose[self.translation]
        if self.rotation:
            action[self.rotation] = rotation_vector(_rotation(wanted) @ _rotation(pose).T)
        return action.astype(np.float32)

    def actions(self, pose: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The actions (n, A) float32 that lead from `pose` through the poses `wanted`, in order."""
        here = [pose, *wanted]
        made = [self.action(a, b) for a, b in zip(here, wanted, strict=False)]
        return np.array(made, np.float32).reshape(len(wanted), self.size)


def divided(actions: np.ndarray, parts: int, shifts: Shifts) -> np.ndarray:
    """Actions (n, A) for a control rate `parts` times as high: (n * parts, A).

    A shift is done in `parts` equal parts; what says where to be is said as often.
    """
    many = np.repeat(actions, parts, axis=0)
    many[:, shifts.elements] /= parts
    return many


def merged(actions: np.ndarray, parts: int, shifts: Shifts) -> np.ndarray:
    """The other way: actions (n, A) of the high rate as those of the low one, (n // parts, A).

    Shifts add up (rotations, small ones, too); of the rest the first of each `parts` counts.
    """
    whole = actions[: len(actions) // parts * parts].reshape(-1, parts, actions.shape[1])
    few = whole[:, 0].copy()
    few[:, shifts.elements] = whole[:, :, shifts.elements].sum(axis=1)
    return few


def divided_limits(action: TensorSpec, parts: int) -> TensorSpec:
    """What an action is at a control rate `parts` times as high: its shifts have `parts` times
    tighter limits, so that nothing moves faster."""
    if parts == 1 or not action.low:
        return action
    elements = Shifts(action.labels).elements

    def tighter(limits: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(x / parts if i in elements else x for i, x in enumerate(limits))

    return replace(action, low=tighter(action.low), high=tighter(action.high))


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """A rotation vector (3,) in radians -> the matrix (3, 3) (Rodrigues' formula)."""
    x, y, z = map(float, vector)
    angle = math.sqrt(x * x + y * y + z * z)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    if angle < 1e-8:
        return np.eye(3) + cross
    half = math.sin(angle / 2) / angle
    return np.eye(3) + math.sin(angle) / angle * cross + 2 * half * half * (cross @ cross)


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """A rotation matrix (3, 3), to rounding or a mean of some -> the vector (3,), at most pi long.

    By the quaternion of its largest part, so that turns by nearly pi keep their axis.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    # Each row is 4 q_i q of the unit quaternion q (w x y z): the one with the largest diagonal has
    # the least rounding.
    rows = np.array(
        [
            [1 + a + e + i, h - f, c - g, d - b],
            [h - f, 1 + a - e - i, b + d, c + g],
            [c - g, b + d, 1 - a + e - i, f + h],
            [d - b, c + g, f + h, 1 - a - e + i],
        ]
    )
    row = rows[int(np.argmax(np.diag(rows)))]
    quaternion = row / np.linalg.norm(row) * (1.0 if row[0] >= 0 else -1.0)
    sine = float(np.linalg.norm(quaternion[1:]))
    if sine < 1e-9:
        return 2 * quaternion[1:]
    return 2 * math.atan2(sine, float(quaternion[0])) / sine * quaternion[1:]


def _rotation(pose: np.ndarray) -> np.ndarray:
    return pose[-_ROTATION_SIZE:].reshape(3, 3)
