"""The policies that a server is started with, and again at a reload: from options to what runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.replica import start_replicas
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.deploy.serving.served_policy import ServedPolicy


@dataclass(frozen=True)
class BundleOptions:
    """What runs a bundle, and how: the options of `policy-serve` by the same names, 0 where the
    choice is ours."""

    bundle: str
    backend: str
    precision: str
    threads: int
    loops: int
    steps: int
    batch: int
    replicas: int


def load_policy(options: BundleOptions) -> ServedBundle:
    """In this process, and cold."""
    bundle = Bundle.open(options.bundle)
    backend = load_backend(bundle, options.backend, options.threads or None, options.precision)
    return ServedBundle(bundle, backend)


def warm(policy: ServedBundle, options: BundleOptions) -> None:
    """Run everything once that may be chosen while it is served, and know what it takes."""
    rungs = offer_of(policy, options.loops, options.steps).planner.rungs
    policy.measure(rungs, options.batch)


def warm_policy(options: BundleOptions) -> ServedBundle:
    """In this process, ready to be served."""
    policy = load_policy(options)
    warm(policy, options)
    return policy


def warm_policies(options: BundleOptions) -> Sequence[ServedPolicy]:
    """Ready to be served: in this process, or each in one of its own where there are several."""
    if options.replicas > 1:
        return start_replicas(options.replicas, warm_policy, options)
    return [warm_policy(options)]
