"""The policies that a server is started with, and again at a reload: from options to what runs.

In two parts, because the second takes longer: what is wrong with the first shows at once, and a
server can say between them that it is warming up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.replica import Replica, load_replicas, warm_replicas
from loopdit.deploy.serving.replica_process import ReplicaProcess
from loopdit.deploy.serving.replica_side import Recipe
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.deploy.serving.served_policy import PlannedPolicy, ServedPolicy

PROCESSES, RAY = "processes", "ray"


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
    launcher: str = PROCESSES
    replica_gpus: float = 0.0


def load_policies(options: BundleOptions) -> Sequence[ServedPolicy]:
    """Cold: in this process, or each in one of its own where there are several, or Ray is wanted.

    Raises what opening the bundle and its back end raises, and ConfigError where Ray is not there.
    """
    if options.launcher == RAY:
        from loopdit.deploy.serving.replica_ray import RayReplica, connect

        cpus = float(max(1, options.threads))
        connect(cpus * options.replicas)
        place = partial(RayReplica, _recipe(options), cpus, options.replica_gpus)
        return load_replicas(options.replicas, place)
    if options.replicas > 1:
        return load_replicas(options.replicas, partial(ReplicaProcess, _recipe(options)))
    return [load_policy(options)]


def warm_policies(policies: Sequence[ServedPolicy], options: BundleOptions) -> None:
    """Run everything once that may be chosen while they are served, and know what it takes."""
    replicas = [policy for policy in policies if isinstance(policy, Replica)]
    warm_replicas(replicas)
    for policy in policies:
        if isinstance(policy, ServedBundle):
            _measure(options, policy)


def load_policy(options: BundleOptions) -> ServedBundle:
    """In this process, and cold."""
    bundle = Bundle.open(options.bundle)
    backend = load_backend(bundle, options.backend, options.threads or None, options.precision)
    return ServedBundle(bundle, backend)


def _recipe(options: BundleOptions) -> Recipe:
    return Recipe(partial(load_policy, options), partial(_measure, options))


def _measure(options: BundleOptions, policy: PlannedPolicy) -> None:
    assert isinstance(policy, ServedBundle)  # as `load_policy` makes it
    rungs = offer_of(policy, options.loops, options.steps).planner.rungs
    policy.measure(rungs, options.batch)
