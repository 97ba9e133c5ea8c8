"""Inverse kinematics of the arm by damped least squares on a scratch copy of the state."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import mujoco
import numpy as np

from loopdit.envs.arm_scene import ARM_JOINTS
from loopdit.envs.rotations import difference

# A radian of rotation error weighs as much as 0.3 m of position error.
_ROTATION_WEIGHT_M = 0.3
_TOLERANCE_M = 3e-4
_DAMPING = 0.03
_MAX_JOINT_STEP_RAD = 0.3


class InverseKinematics:
    """Joint angles (6,) that put the end effector at a pose, from a nearby start."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._site = model.site("end_effector").id
        joints = [model.joint(name) for name in ARM_JOINTS]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._limits = np.array([joint.range for joint in joints])
        self._jacobian = np.zeros((6, model.nv))

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
        error = np.zeros(6)
        for _ in range(iterations):
            error = self._error(joints, position, quaternion)
            residual = float(np.linalg.norm(error))
            if residual < _TOLERANCE_M:
                return joints, residual
            jacobian = self._site_jacobian()
            # Damping fades near the goal, so that the last iterations are Newton steps.
            damping = _DAMPING**2 * min(1.0, 20 * residual)
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping * np.eye(6), error)
            step = np.clip(step, -_MAX_JOINT_STEP_RAD, _MAX_JOINT_STEP_RAD)
            joints = np.clip(joints + step, self._limits[:, 0], self._limits[:, 1])
        return joints, float(np.linalg.norm(self._error(joints, position, quaternion)))

    def _error(
        self, joints: np.ndarray, position: np.ndarray, quaternion: np.ndarray
    ) -> np.ndarray:
        self._data.qpos[self._qpos] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        current = np.zeros(4)
        mujoco.mju_mat2Quat(current, self._data.site_xmat[self._site])
        rotation = _ROTATION_WEIGHT_M * difference(quaternion, current)
        return np.concatenate([position - self._data.site_xpos[self._site], rotation])

    def _site_jacobian(self) -> np.ndarray:
        mujoco.mj_jacSite(
            self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site
        )
        jacobian = self._jacobian[:, self._dofs]
        jacobian[3:] *= _ROTATION_WEIGHT_M
        return jacobian
