"""A job's frames, where they were sent as JPEGs: decoded in the thread that computes, before it
does, so that neither a large picture nor many of them hold up the others' messages."""

import msgspec

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.clock import Clock
from loopdit.deploy.jpeg_frames import decoded
from loopdit.deploy.messages import WireError
from loopdit.deploy.serving.answers import Job
from loopdit.deploy.serving.sessions import Request


def with_frames(job: Job, spec: PolicySpec, clock: Clock) -> tuple[Job, list[Exception | None]]:
    """The job with arrays in the place of JPEGs, and what is wrong with each of its requests. One
    that is given back, because what computed it was lost, is not decoded again."""
    requests: list[Request] = []
    faults: list[Exception | None] = []
    for request in job.requests:
        fault = None
        if request.obs.jpeg:
            try:
                request = _decoded(request, spec, clock)
            except (WireError, MemoryError) as error:
                fault = error
        requests.append(request)
        faults.append(fault)
    return msgspec.structs.replace(job, requests=tuple(requests)), faults


def _decoded(request: Request, spec: PolicySpec, clock: Clock) -> Request:
    began_s = clock.now
    observation = decoded(request.observation, request.obs.jpeg, spec)
    return msgspec.structs.replace(
        request,
        observation=observation,
        obs=msgspec.structs.replace(request.obs, jpeg=()),
        frames_s=clock.now - began_s,
    )
