"""Which wire code says what is wrong with an observation; the spec itself finds it."""

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.deploy.robot.guide import GUIDE, check_with_guide
from loopdit.errors import ObservationError


def check_observation(spec: PolicySpec, observation: Observation) -> None:
    """Raise WireError(UNKNOWN, SHAPE, DTYPE, NONFINITE or MALFORMED) naming what is wrong."""
    try:
        check_with_guide(observation, spec)
    except ObservationError as fault:
        raise WireError(_code_of_fault(spec, observation), str(fault)) from None


def _code_of_fault(spec: PolicySpec, observation: Observation) -> ErrorCode:
    declared, given = {t.name for t in spec.observations}, set(observation) - {GUIDE}
    cameras = {camera.name for camera in spec.cameras}
    blind = bool(cameras) and not cameras & given
    if given - declared or declared - given - set(spec.optional) or blind:
        return ErrorCode.UNKNOWN
    for tensor in spec.observations:
        if tensor.name not in given:
            continue
        value = observation[tensor.name]
        if tuple(value.shape) != tensor.shape:
            return ErrorCode.SHAPE
        if value.dtype != np.dtype(tensor.dtype):
            return ErrorCode.DTYPE
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return ErrorCode.NONFINITE
    return ErrorCode.MALFORMED  # each tensor for itself is one that the policy takes
