"""Serve what lies at the bundle's place now, without a restart and without losing a request.

The new policy is loaded and warmed in a thread of its own, beside the old one, which serves until
then. One that cannot be loaded, or that the connected robots were not made for, leaves the old one
serving, with one line in the log.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from loopdit.deploy.garbage import settle_garbage
from loopdit.deploy.serving.served_policy import Revivable, ServedPolicy
from loopdit.deploy.serving.server import PolicyServer

_LOG = logging.getLogger(__name__)


class Reloader:
    """`load` gives a policy (several: of one model) that is warm; `say` is told of a success."""

    def __init__(
        self,
        server: PolicyServer,
        load: Callable[[], Sequence[ServedPolicy]],
        say: Callable[[str], object],
    ) -> None:
        self._server = server
        self._load = load
        self._say = say
        self._asked = threading.Event()
        threading.Thread(target=self._run, name="policy-reload", daemon=True).start()

    def ask(self) -> None:
        """Load again; once more after a reload that is under way. Returns at once."""
        self._asked.set()

    def _run(self) -> None:
        while self._asked.wait():
            self._asked.clear()
            self._reload()

    def _reload(self) -> None:
        old = self._server.offer.model_id
        policies: Sequence[ServedPolicy] = ()
        try:
            policies = self._load()
            self._server.replace(policies)
        except Exception as error:  # any: what is served goes on, whatever is wrong with the new
            reason = " ".join(str(error).split())
            _LOG.error("not reloaded, model %s is served on: %s", old, reason)
            for policy in policies:
                if isinstance(policy, Revivable):
                    policy.close()
        else:
            settle_garbage()  # what was left of the old one: no other collection looks at it
            self._say(f"reloaded: model {policies[0].model_id} in the place of {old}")
