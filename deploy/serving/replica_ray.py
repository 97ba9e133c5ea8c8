"""A replica as an actor of a Ray cluster: beyond one machine.

Ray decides on which machine it runs, carries what is asked and answered, and says when it is gone.
`RAY_ADDRESS` names a cluster that is there, whose machines have the same loopdit installed and see
the same bundle; without it one is started on this machine. A cluster of one's
own is started with RAY_worker_niceness=0, and with RAY_USE_TLS where its network is not.
"""

import math
import os
import threading
from typing import Any

from loopdit.deploy.serving.replica_side import Recipe, ReplicaSide, looks
from loopdit.deploy.serving.served_policy import ReplicaLost
from loopdit.errors import ConfigError

_NICENESS = "RAY_worker_niceness"


class _Actor(ReplicaSide):
    def hold(self) -> None:
        """Never return: a call of this that has ended says that the actor has."""
        threading.Event().wait()


class RayReplica:
    """See `replica.Place`. `cpus` and `gpus` are what Ray keeps for it."""

    def __init__(self, recipe: Recipe, cpus: float, gpus: float) -> None:
        import ray  # an extra; `connect` was called

        self._ray: Any = ray
        # In a thread each: what holds, and what computes.
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_concurrency": 2, "max_restarts": 0}
        self._actor: Any = self._ray.remote(**options)(_Actor).remote(recipe)
        self._held: Any = self._actor.hold.remote()
        self._asked: Any = None

    @property
    def alive(self) -> bool:
        """As far as Ray knows, which misses a machine that is cut off after a minute."""
        ended, _ = self._ray.wait([self._held], timeout=0)
        return not ended

    @property
    def process_id(self) -> int | None:
        """None: it may be another machine's."""
        return None

    def begin(self, method: str, *arguments: object) -> None:
        """See `Place.begin`."""
        if not self.alive:
            raise ReplicaLost("the Ray actor that was to compute is gone.", begun=False)
        self._asked = getattr(self._actor, method).remote(*arguments)

    def result(self, within_s: float = math.inf) -> Any:
        """See `Place.result`."""
        for look_s in looks(within_s):
            try:
                return self._ray.get(self._asked, timeout=look_s)
            except self._ray.exceptions.GetTimeoutError:
                continue
            except self._ray.exceptions.RayActorError as error:
                raise ReplicaLost("the Ray actor that computed is gone.") from error
        raise ReplicaLost(f"the Ray actor that computed did not answer within {within_s:.1f} s.")

    def close(self) -> None:
        """End the actor."""
        self._ray.kill(self._actor)


def connect(cpus: float) -> None:
    """To the cluster; one that is started here has so many `cpus`. Raises ConfigError where Ray is
    not installed or cannot be reached."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("launcher=ray needs Ray: pip install 'loopdit[ray]'") from error
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"logging_level": "error"}
    if not address:
        settings |= {"num_cpus": math.ceil(cpus), "include_dashboard": False}
        # Ray's own workers run at niceness 15: whatever else the machine does would go first.
        os.environ.setdefault(_NICENESS, "0")
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"launcher=ray cannot reach RAY_ADDRESS={address or '(not set)'}: {error}. Start a "
            f"cluster with ray start --head, or use launcher=processes."
        ) from error
