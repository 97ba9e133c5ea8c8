"""What a server says of the policy that it serves, and what a request may ask of it.

Pure, and never changed: another policy is another Offer.
"""

from dataclasses import dataclass

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy import jpeg_frames
from loopdit.deploy.jpeg_frames import JPEG
from loopdit.deploy.messages import PROTOCOL_VERSION, ErrorCode, Hello, Welcome, WireError
from loopdit.deploy.serving.planner import UNMEASURED, Planner, ladder
from loopdit.deploy.serving.served_policy import PlannedPolicy, ServedPolicy
from loopdit.errors import ConfigError

MAX_STEPS = 1000


@dataclass(frozen=True)
class Offer:
    """`planner` chooses what a request leaves open; `may_stop`: the policy may take fewer loops."""

    spec: PolicySpec
    spec_digest: str
    model_id: str
    horizon: int
    loops: tuple[int, ...]
    max_steps: int
    may_stop: bool
    planner: Planner

    @property
    def default_loops(self) -> int:
        """What is run for a request that says nothing and has time."""
        return self.planner.rungs[0].loops

    @property
    def default_steps(self) -> int:
        """What is run for a request that says nothing and has time."""
        return self.planner.rungs[0].steps

    def require(self, loops: int, steps: int) -> None:
        """Raise WireError(UNSUPPORTED) unless a request may say this (0: it says nothing)."""
        if loops not in (0, *self.loops):
            offered = ", ".join(str(n) for n in self.loops)
            raise WireError(
                ErrorCode.UNSUPPORTED, f"loops={loops} is not served. Ask for one of: {offered}."
            )
        if steps > self.max_steps:
            raise WireError(
                ErrorCode.UNSUPPORTED,
                f"steps={steps} is not served. Ask for 1 to {self.max_steps}.",
            )

    def require_understood(self, hello: Hello) -> None:
        """Raise WireError (VERSION, SPEC_MISMATCH) for a client made for something else."""
        if not hello.protocol_min <= PROTOCOL_VERSION <= hello.protocol_max:
            raise WireError(
                ErrorCode.VERSION,
                f"the client speaks protocol {hello.protocol_min} to {hello.protocol_max}, the "
                f"server {PROTOCOL_VERSION}. Use the same loopdit on both sides.",
            )
        if hello.spec_digest not in ("", self.spec_digest):
            raise WireError(
                ErrorCode.SPEC_MISMATCH,
                f"the client was made for spec {hello.spec_digest[:32]}, the served policy "
                f"({self.model_id}) has spec {self.spec_digest}. Serve the bundle the client was "
                f"made for.",
            )

    def welcome(self, hello: Hello, epoch: int, shared_memory: str) -> Welcome:
        """The answer to a client that may stay."""
        return Welcome(
            seq=hello.seq,
            protocol=PROTOCOL_VERSION,
            session=hello.session,
            epoch=epoch,
            model_id=self.model_id,
            horizon=self.horizon,
            loops=self.loops,
            default_loops=self.default_loops,
            default_steps=self.default_steps,
            spec_digest=self.spec_digest,
            spec=self.spec.to_dict(),
            shared_memory=shared_memory,
            encodings=(JPEG,) if self.spec.cameras and jpeg_frames.available() else (),
        )


def offer_of(policy: ServedPolicy, pinned_loops: int = 0, pinned_steps: int = 0) -> Offer:
    """What is served of `policy`, once it is warm. A pinned K or number of steps (0: none is) is
    run for every request that names no other.

    Raises ConfigError for one that the policy has not.
    """
    planned = isinstance(policy, PlannedPolicy)
    deepest = policy.default_loops if planned else max(policy.loops)
    most = (policy.max_steps if planned else None) or MAX_STEPS
    chosen = [pinned_loops] if pinned_loops else [k for k in policy.loops if k <= deepest]
    rungs = ladder(chosen, pinned_steps or policy.steps, halve_steps=not pinned_steps)
    offer = Offer(
        spec=policy.spec,
        spec_digest=policy.spec.digest(),
        model_id=policy.model_id,
        horizon=policy.horizon,
        loops=tuple(policy.loops),
        max_steps=min(most, MAX_STEPS),
        may_stop=planned and policy.stops_early and not pinned_loops,
        planner=Planner(rungs, policy.latency if planned else UNMEASURED),
    )
    try:
        offer.require(pinned_loops, pinned_steps)
    except WireError as fault:
        raise ConfigError(str(fault)) from None
    return offer
