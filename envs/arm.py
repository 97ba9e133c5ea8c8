"""The simulated arm: 7-D delta end-effector commands in, poses and contacts out.

An action moves a *reference* pose (not the measured one, so that tracking error does not
accumulate); inverse kinematics turns it into joint targets, ramped over the control period.
Knows nothing of tasks, cameras or Gymnasium.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import copy
import math
from collections.abc import Generator
from contextlib import contextmanager

import mujoco
import numpy as np

from loopdit.envs.arm_scene import ARM_JOINTS, FINGER_TRAVEL_M, PADS, TIMESTEP_S
from loopdit.envs.kinematics import InverseKinematics
from loopdit.envs.rotations import TOOL_DOWN, matrix_of, multiply, quaternion_of

MAX_TRANSLATION_M = 0.03
MAX_ROTATION_RAD = 0.25
WORKSPACE_LOW_M = np.array([0.14, -0.26, 0.010])
WORKSPACE_HIGH_M = np.array([0.46, 0.26, 0.34])
_HOME_M = np.array([0.24, 0.0, 0.20])
_HOME_JOINTS = np.array([0.0, -0.6, 0.6, 0.0, 1.5, 0.0])
# Beyond this residual the pose is out of reach: the step is dropped, so the reference cannot wind
# up where the arm cannot follow.
_UNREACHABLE_M = 0.02
_STILL_M_S = 0.05
_ACTION_HIGH = np.array([MAX_TRANSLATION_M] * 3 + [MAX_ROTATION_RAD] * 3 + [1.0])
_ACTION_LOW = np.array([*-_ACTION_HIGH[:6], 0.0])
# What of an arm a command changes.
_MOVING = ("data", "rejected", "reference_position", "reference_quaternion", "_joint_targets")
RAMP_SHARE = 0.8  # of the control period: over this the joint targets move
_UNSTABLE = [
    int(mujoco.mjtWarning.mjWARN_BADQACC),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
]


class Arm:
    """The compiled `scene` with the arm in it, and its state.

    `rejected` tells whether the last command was out of reach and therefore dropped; `substeps` is
    how many physics steps a control period has.
    """

    def __init__(self, scene: mujoco.MjSpec, control_period_s: float) -> None:
        self.substeps = math.ceil(control_period_s / TIMESTEP_S - 1e-9)
        ramp = max(1, int(RAMP_SHARE * self.substeps))
        self._ramp = np.arange(1, ramp + 1)[:, None] / ramp  # (ramp, 1), the last one is 1
        # A whole number of physics steps in a control period, none longer than TIMESTEP_S.
        scene.option.timestep = control_period_s / self.substeps
        self.model = scene.compile()
        self.data = mujoco.MjData(self.model)
        self.rejected = False
        self.reference_position = _HOME_M.copy()
        self.reference_quaternion = TOOL_DOWN.copy()
        self._kinematics = InverseKinematics(self.model)
        self._joint_targets = _HOME_JOINTS.copy()
        self._site = self.model.site("end_effector").id
        self._arm_qpos = [self.model.joint(name).qposadr[0] for name in ARM_JOINTS]
        self._finger_qpos = [self.model.joint(name).qposadr[0] for name in ("left", "right")]
        self._pads = {self.model.geom(name).id for name in PADS}

    def reset(self, rng: np.random.Generator) -> None:
        """Arm near home with an open gripper; objects at their defaults. Call `settle` after."""
        mujoco.mj_resetData(self.model, self.data)
        self.rejected = False
        self.reference_position = _HOME_M + rng.uniform(-0.02, 0.02, 3)
        self.reference_quaternion = TOOL_DOWN.copy()
        joints, _ = self._kinematics.solve(
            self.reference_position, self.reference_quaternion, _HOME_JOINTS, iterations=240
        )
        self._joint_targets = joints
        self.data.qpos[self._arm_qpos] = joints
        self.data.qpos[self._finger_qpos] = FINGER_TRAVEL_M
        self.data.ctrl[:6], self.data.ctrl[6] = joints, FINGER_TRAVEL_M

    def place(
        self, body: str, position: np.ndarray, yaw: float, velocity: np.ndarray | None = None
    ) -> None:
        """Put a free or mocap body at `position` (3,) m, upright, turned by `yaw` rad.

        `velocity` (6,): linear m/s and angular rad/s of a free body, at rest without.
        """
        heading = [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
        found = self.model.body(body)
        mocap = int(found.mocapid[0])
        if mocap >= 0:
            self.data.mocap_pos[mocap], self.data.mocap_quat[mocap] = position, heading
            return
        joint = self.model.jnt(found.jntadr[0])
        self.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 7] = [*position, *heading]
        if velocity is not None:
            self.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = velocity

    def settle(self, seconds: float = 0.1) -> None:
        """Let objects come to rest before the first observation."""
        mujoco.mj_forward(self.model, self.data)
        for _ in range(round(seconds / self.model.opt.timestep)):
            mujoco.mj_step(self.model, self.data)

    def command(self, action: np.ndarray) -> None:
        """Execute one action (7,) for one control period. Values beyond the limits are clipped."""
        model, data, step, ctrl = self.model, self.data, mujoco.mj_step, self.data.ctrl
        targets = self.targets(action)
        for target in targets:
            ctrl[:7] = target
            step(model, data)
        # The rest of the period in one call: MuJoCo's own loop, and no Python in between.
        if rest := self.substeps - len(targets):
            step(model, data, nstep=rest)

    def targets(self, action: np.ndarray) -> np.ndarray:
        """Take an action (7,) as the command, without moving: the actuator targets (ramp, 7) of the
        physics steps that are to follow; the last one stays to the end of the control period."""
        limited = np.minimum(np.maximum(action, _ACTION_LOW), _ACTION_HIGH)
        position, quaternion = self._commanded_by(limited)
        before = self._joint_targets
        after, residual = self._kinematics.solve(position, quaternion, before)
        self.rejected = residual >= _UNREACHABLE_M
        if not self.rejected:
            self.reference_position, self.reference_quaternion = position, quaternion
            self._joint_targets = after
        else:
            after = before
        targets = np.empty((len(self._ramp), 7))
        targets[:, :6] = before + (after - before) * self._ramp
        targets[:, 6] = limited[6] * FINGER_TRAVEL_M
        return targets

    @contextmanager
    def as_commanded(self, actions: np.ndarray) -> Generator[None]:
        """Inside, the commanded pose is where the actions (n, 7) would bring it; nothing moves."""
        before = self.reference_position, self.reference_quaternion
        try:
            for action in actions:
                limited = np.minimum(np.maximum(action, _ACTION_LOW), _ACTION_HIGH)
                self.reference_position, self.reference_quaternion = self._commanded_by(limited)
            yield
        finally:
            self.reference_position, self.reference_quaternion = before

    @contextmanager
    def imagined(self) -> Generator[None]:
        """Inside, commands are carried out in a copy of the world; afterwards it was nothing."""
        kept = {name: value for name, value in vars(self).items() if name in _MOVING}
        self.data = copy.copy(self.data)
        try:
            yield
        finally:
            vars(self).update(kept)

    def _commanded_by(self, limited: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pose that an action (7,) within the limits commands: (3,) m and a quaternion."""
        position = self.reference_position + limited[:3]
        position = np.minimum(np.maximum(position, WORKSPACE_LOW_M), WORKSPACE_HIGH_M)
        quaternion = multiply(quaternion_of(limited[3:6]), self.reference_quaternion)
        return position, quaternion / np.linalg.norm(quaternion)

    @property
    def position(self) -> np.ndarray:
        """Measured end-effector position (3,) m in the base frame, a copy."""
        return self.data.site_xpos[self._site].copy()

    @property
    def rotation(self) -> np.ndarray:
        """Measured end-effector rotation matrix (3, 3), base from tool, a copy."""
        return self.data.site_xmat[self._site].reshape(3, 3).copy()

    @property
    def reference_rotation(self) -> np.ndarray:
        """Commanded rotation matrix (3, 3), base from tool."""
        return matrix_of(self.reference_quaternion)

    @property
    def opening(self) -> float:
        """Measured gripper opening, 0 closed to 1 open."""
        return float(self.data.qpos[self._finger_qpos[0]] / FINGER_TRAVEL_M)

    @property
    def unstable(self) -> bool:
        """Whether MuJoCo met a NaN and reset itself: such an episode must never be scored."""
        return bool(self.data.warning.number[_UNSTABLE].any())

    def still(self, body: str) -> bool:
        """Whether a body moves slower than 5 cm/s along every axis."""
        return bool(np.abs(self.data.body(body).cvel[3:]).max() < _STILL_M_S)

    def body_position(self, body: str) -> np.ndarray:
        """Position (3,) m of a body, a copy."""
        return self.data.body(body).xpos.copy()

    def body_quaternion(self, body: str) -> np.ndarray:
        """Orientation (4,) of a body, a copy."""
        return self.data.body(body).xquat.copy()

    def pads_touching(self, geom: str) -> int:
        """How many of the two finger pads touch `geom`."""
        target = self.model.geom(geom).id
        # One array of all pairs: the contacts one by one, as objects, cost 50 us a call.
        pairs = self.data.contact.geom  # (contacts, 2)
        return len({one for pair in pairs.tolist() if target in pair for one in pair} & self._pads)
