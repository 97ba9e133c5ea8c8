"""Which waiting requests are computed together.

A batch is taken when the policy is free, of what waits then: nobody waits for others to come. It
has the rung that its first request would have alone, sizes that pay on this back end, and only
requests that would get the same rung alone. It must never make anyone late: each member's chunk can
be relied on to be there in time, and who is left waiting can still begin afterwards. Pure.
"""

from collections.abc import Collection, Sequence

import msgspec

from loopdit.deploy.robot.guide import GUIDE
from loopdit.deploy.serving.planner import Planner, Rung
from loopdit.deploy.serving.sessions import Request


class Batch(msgspec.Struct, frozen=True):
    """What to compute next."""

    requests: tuple[Request, ...]
    rung: Rung


def next_batch(
    order: Sequence[Request],
    planner: Planner,
    now: float,
    busy: Collection[tuple[int, int]] = (),
) -> Batch | None:
    """Of the requests that wait, the next one first; None where none can be in time. Sessions (in
    an epoch) that are `busy` have a request in compute: the next one waits for its answer."""
    for first in order:
        if (first.session, first.obs.epoch) not in busy:
            rung = _rung_alone(first, planner, now)
            if rung is not None:
                return Batch(_companions(first, rung, order, planner, now, busy), rung)
    return None


def least_s(request: Request, planner: Planner) -> float:
    """How long before its deadline it must begin at the latest."""
    return planner.least_s(planner.allowed(request.obs.loops, request.obs.steps))


def _rung_alone(request: Request, planner: Planner, now: float) -> Rung | None:
    allowed = planner.allowed(request.obs.loops, request.obs.steps)
    return planner.choose(allowed, request.deadline_s - now)


def _companions(
    first: Request,
    rung: Rung,
    order: Sequence[Request],
    planner: Planner,
    now: float,
    busy: Collection[tuple[int, int]],
) -> tuple[Request, ...]:
    chosen = (first,)
    if not planner.batches or GUIDE in first.observation:
        return chosen
    alike = [
        request
        for request in order
        if request is not first
        and (request.session, request.obs.epoch) not in busy
        and GUIDE not in request.observation  # computed one by one
        and bool(request.obs.loops) == bool(first.obs.loops)  # pinned, or may stop early
        and _rung_alone(request, planner, now) == rung
    ]
    for size in planner.batches:
        if size > 1 + len(alike):
            break
        group = (first, *alike[: size - 1])
        if _harms_nobody(group, rung, order, planner, now):
            chosen = group
    return chosen


def _harms_nobody(
    group: Sequence[Request], rung: Rung, order: Sequence[Request], planner: Planner, now: float
) -> bool:
    size, members = len(group), {request.session for request in group}
    ends_s = now + planner.relied_s(rung, size)
    return all(planner.in_time(rung, size, r.deadline_s - now) for r in group) and all(
        ends_s <= r.deadline_s - least_s(r, planner) for r in order if r.session not in members
    )
