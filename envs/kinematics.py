"""Inverse kinematics of the arm by damped least squares on a scratch copy of the state."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import math

import mujoco
import numpy as np

from loopdit.envs.arm_scene import ARM_JOINTS

# A radian of rotation error weighs as much as 0.3 m of position error.
_ROTATION_WEIGHT_M = 0.3
_TOLERANCE_M = 3e-4
_DAMPING = 0.03
_MAX_JOINT_STEP_RAD = 0.3
# Further down the elbow passes its straight position and folds the other way; the wrist then ends
# at its limit, and every command back in is refused: the arm would be stuck there for good.
_ELBOW, _ELBOW_LOWEST_RAD = 2, -1.35
_IDENTITY = np.eye(6)


class InverseKinematics:
    """Joint angles (6,) that put the end effector at a pose, from a nearby start.

    It runs once in every control step, between physics that take 0.26 ms, so it allocates little
    and calls MuJoCo on arrays it keeps: 38 us for a full-speed move, which takes two iterations.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._site = model.site("end_effector").id
        joints = [model.joint(name) for name in ARM_JOINTS]
        # The arm's joints follow each other, so views will do: an index array costs 1 us a use.
        first, dof = int(joints[0].qposadr[0]), int(joints[0].dofadr[0])
        assert [int(joint.qposadr[0]) for joint in joints] == list(range(first, first + 6))
        self._joints = self._data.qpos[first : first + 6]
        self._low, self._high = np.array([joint.range for joint in joints]).T.copy()
        self._low[_ELBOW] = _ELBOW_LOWEST_RAD
        self._site_position = self._data.site_xpos[self._site]  # a view, like the next
        self._site_matrix = self._data.site_xmat[self._site]
        self._translation, self._rotation = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self._jacobian = np.zeros((6, 6))
        self._columns = slice(dof, dof + 6)
        self._current, self._inverse, self._turn = np.zeros(4), np.zeros(4), np.zeros(4)
        self._error = np.zeros(6)
        self._error_rotation = self._error[3:]

    def solve(
        self,
        position: np.ndarray,
        quaternion: np.ndarray,
        start: np.ndarray,
        iterations: int = 12,
    ) -> tuple[np.ndarray, float]:
        """position (3,) m, quaternion (4,), start (6,) rad -> joints (6,) rad, residual.

        The residual is the length of the error in m, a radian counted as 0.3 m. Twelve iterations
        from the last control step's joints leave at most 0.3 mm where the pose is reachable.
        """
        joints = start.copy()
        residual = self._residual(joints, position, quaternion)
        for _ in range(iterations):
            if residual < _TOLERANCE_M:
                break
            jacobian = self._site_jacobian()
            # Damping fades near the goal, so that the last iterations are Newton steps.
            damping = _DAMPING**2 * min(1.0, 20 * residual)
            square = jacobian @ jacobian.T + damping * _IDENTITY
            step = jacobian.T @ np.linalg.solve(square, self._error)
            # np.clip takes four times as long as its two halves on six numbers.
            step = np.minimum(np.maximum(step, -_MAX_JOINT_STEP_RAD), _MAX_JOINT_STEP_RAD)
            joints = np.minimum(np.maximum(joints + step, self._low), self._high)
            residual = self._residual(joints, position, quaternion)
        return joints, residual

    def _residual(self, joints: np.ndarray, position: np.ndarray, quaternion: np.ndarray) -> float:
        """The length of `self._error` (6,), which it sets for `joints`."""
        self._joints[:] = joints
        mujoco.mj_kinematics(self._model, self._data)
        error = self._error
        error[:3] = position - self._site_position
        mujoco.mju_mat2Quat(self._current, self._site_matrix)
        mujoco.mju_negQuat(self._inverse, self._current)
        mujoco.mju_mulQuat(self._turn, quaternion, self._inverse)
        mujoco.mju_quat2Vel(self._error_rotation, self._turn, 1.0)
        self._error_rotation *= _ROTATION_WEIGHT_M
        return math.sqrt(error @ error)

    def _site_jacobian(self) -> np.ndarray:
        """(6, 6), for the joints of the last `_residual`."""
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, self._translation, self._rotation, self._site)
        self._jacobian[:3] = self._translation[:, self._columns]
        np.multiply(self._rotation[:, self._columns], _ROTATION_WEIGHT_M, out=self._jacobian[3:])
        return self._jacobian
