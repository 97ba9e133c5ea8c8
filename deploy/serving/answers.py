"""What a computed request is answered with: its chunk, or the error that says why there is none."""

import msgspec
import numpy as np

from loopdit.deploy.messages import Chunk, ErrorCode, Timing, WireError
from loopdit.deploy.serving.offer import Offer
from loopdit.deploy.serving.planner import Rung
from loopdit.deploy.serving.served_policy import Inference, Outcome
from loopdit.deploy.serving.sessions import Request
from loopdit.errors import ObservationError, OutOfMemory


class Job(msgspec.Struct, frozen=True):
    """One inference to run: a batch of requests at one rung. `may_stop`: with fewer loops, where
    the policy finds that more change nothing."""

    number: int
    requests: tuple[Request, ...]
    rung: Rung
    may_stop: bool
    started_s: float
    offer: Offer  # of the policy that is to run it


def chunk_for(
    job: Job, request: Request, outcome: Outcome, ended_s: float, now: float
) -> tuple[Chunk, np.ndarray]:
    """The chunk's header and its actions (H, A). `ended_s`: when compute ended.

    Raises WireError, where the outcome is an error or actions that must not reach a robot.
    """
    obs = request.obs
    if not isinstance(outcome, Inference):
        raise WireError(_code_of(outcome), str(outcome), obs.seq)
    fault = _unfit(outcome.actions, job.offer)
    if fault:
        raise WireError(ErrorCode.INTERNAL, fault, obs.seq)
    timing = Timing(
        queue=microseconds(job.started_s - request.ready_s),
        decode=microseconds(request.ready_s - request.received_s + request.frames_s),
        encode=outcome.encode_us,
        denoise=outcome.denoise_us,
        send=microseconds(now - ended_s),
    )
    chunk = Chunk(
        seq=obs.seq,
        epoch=obs.epoch,
        step=obs.step,
        observed_ns=obs.observed_ns,
        loops=outcome.loops,
        steps=outcome.steps,
        model_id=job.offer.model_id,
        timing_us=timing,
    )
    return chunk, outcome.actions


def microseconds(seconds: float) -> int:
    """As the wire has them."""
    return max(0, round(seconds * 1e6))


def _code_of(outcome: Exception) -> str:
    if isinstance(outcome, WireError):
        return outcome.code
    if isinstance(outcome, ObservationError):  # what it was told, not what it computed
        return ErrorCode.UNSUPPORTED
    return ErrorCode.OVERLOAD if isinstance(outcome, OutOfMemory) else ErrorCode.INTERNAL


def _unfit(actions: np.ndarray, offer: Offer) -> str:
    """Why these actions must not reach a robot; empty if they may."""
    expected = (offer.horizon, *offer.spec.action.shape)
    if actions.shape != expected or actions.dtype != np.float32:
        return f"the policy made {actions.dtype} actions {actions.shape}, not float32 {expected}."
    return "" if np.isfinite(actions).all() else "the policy made actions that are not finite."
