"""The few rotations an end-effector task needs. Quaternions are wxyz, unit length."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import math

import mujoco
import numpy as np

Vector = np.ndarray

# The tool's x axis points out of the gripper; this turns it to -z: fingers straight down.
TOOL_DOWN = np.array([math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0])


def quaternion_of(rotation_vector: Vector) -> Vector:
    """Rotation vector (3,) in rad -> quaternion (4,)."""
    angle = float(np.linalg.norm(rotation_vector))
    if angle < 1e-12:
        return np.array([1.0, 0.0, 0.0, 0.0])
    axis = np.asarray(rotation_vector) / angle
    return np.concatenate([[math.cos(angle / 2)], axis * math.sin(angle / 2)])


def multiply(a: Vector, b: Vector) -> Vector:
    """Quaternion product: first b, then a."""
    out = np.zeros(4)
    mujoco.mju_mulQuat(out, a, b)
    return out


def difference(target: Vector, current: Vector) -> Vector:
    """World-frame rotation vector (3,) in rad that takes `current` to `target`."""
    inverse, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, current)
    mujoco.mju_quat2Vel(vector, multiply(target, inverse), 1.0)
    return vector


def matrix_of(quaternion: Vector) -> Vector:
    """Quaternion (4,) -> rotation matrix (3, 3)."""
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quaternion)
    return flat.reshape(3, 3)


def tool_down(yaw: float) -> Vector:
    """The pose quaternion of a gripper that points down, turned by `yaw` rad about vertical."""
    return multiply(quaternion_of(np.array([0.0, 0.0, yaw])), TOOL_DOWN)


def yaw_of_tool(quaternion: Vector) -> float:
    """The inverse of `tool_down`, in rad."""
    rotation = matrix_of(quaternion)
    return math.atan2(-rotation[0, 1], rotation[1, 1])


def yaw_of_body(quaternion: Vector) -> float:
    """Heading of a body that stands upright, in rad."""
    rotation = matrix_of(quaternion)
    return math.atan2(rotation[1, 0], rotation[0, 0])
