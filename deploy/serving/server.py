"""The policy server's threads; what it answers is decided in `dispatcher.py`, and its sockets are
`wire/server_lines.py`.

The I/O thread owns the lines and the dispatcher and never computes, so HELLO, PING and RESET are
answered while an inference runs. Each policy has a thread that runs one job at a time
(`worker.py`). They exchange jobs and reports through queues; a report wakes the I/O thread. Only a
policy that says it is `instant` is computed where its request arrived: two handovers between
threads take longer than it does.
"""

import logging
import math
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loopdit.deploy.clock import Clock, MonotonicClock
from loopdit.deploy.messages import EstopAck
from loopdit.deploy.protocol import encode
from loopdit.deploy.security.access import Access
from loopdit.deploy.serving.answers import Job
from loopdit.deploy.serving.dispatcher import PROBE_AFTER_S, Dispatcher, Reply
from loopdit.deploy.serving.observer import Observer
from loopdit.deploy.serving.offer import Offer, offer_of
from loopdit.deploy.serving.served_policy import Outcome, ServedPolicy
from loopdit.deploy.serving.worker import Report, Worker, computation
from loopdit.deploy.wire.local_link import LocalLink
from loopdit.deploy.wire.server_lines import ServerLines
from loopdit.errors import ConfigError

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
_LOG = logging.getLogger(__name__)
# Messages read before finished work is looked at again, so that a flood delays nobody's chunk.
_BURST = 64
# How long a stopping server waits for what is in compute, and for its last words to leave.
_DRAIN_S = 2.0
_LAST_WORDS_MS = 100
_STOPPING = "the server is stopping."


@dataclass(frozen=True)
class _Replacement:
    policies: Sequence[ServedPolicy]
    offer: Offer
    done: threading.Event = field(default_factory=threading.Event)


class PolicyServer:
    """Serves one policy. Binding happens here; nothing is answered before `start`, and what a
    policy offers is read then: warm it up in between.

    policy: several ones of the same model compute at the same time. default_loops, default_steps:
    run for a client that does not say, whatever its budget; 0: chosen to meet it. `endpoint` says
    the port in use (for 0, the one that was free). Raises ConfigError for an endpoint that `access`
    does not allow or for defaults that the policy does not offer, ServerError when the port is
    taken.
    """

    def __init__(
        self,
        policy: ServedPolicy | Sequence[ServedPolicy],
        endpoint: str = DEFAULT_ENDPOINT,
        default_loops: int = 0,
        default_steps: int = 0,
        clock: Clock | None = None,
        access: Access | None = None,
    ) -> None:
        self._pinned = default_loops, default_steps
        self._policies = _listed(policy)
        self._clock = clock or MonotonicClock()
        self._dispatcher = Dispatcher(offer_of(self._policies[0], *self._pinned), self._clock)
        self._workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._instantly: Callable[[Job], tuple[Job, list[Outcome]]] | None = None
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[_Replacement] = queue.SimpleQueue()
        self._observers: list[Observer] = []
        self._stop_by_s = math.inf  # finite: it is stopping
        self._probe_s = self._clock.now + PROBE_AFTER_S
        self._failure: BaseException | None = None
        self._lines = ServerLines(endpoint, self._dispatcher.max_bytes, access)
        self._dispatcher.shared_memory = self._lines.shared_memory
        self.endpoint = self._lines.endpoint
        self._io_thread = threading.Thread(target=self._io, name="policy-io", daemon=True)

    def __enter__(self) -> "PolicyServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._io_thread.is_alive()

    @property
    def begun(self) -> bool:
        """Whether `start` was called: before that, its policy may be warming up."""
        return self._io_thread.ident is not None

    @property
    def offer(self) -> Offer:
        """What is served."""
        return self._dispatcher.offer

    def connect(self) -> LocalLink:
        """A link for a client in this process: for `PolicyClient(link=...)`."""
        return self._lines.connect()

    @property
    def limited(self) -> int:
        """Messages that were refused because their client sends too many."""
        return self._lines.limited

    def observe(self, observer: Observer) -> None:
        """Tell it what is answered; before `start`."""
        self._observers.append(observer)

    def start(self) -> None:
        """Begin to answer."""
        self._swap(self._policies, offer_of(self._policies[0], *self._pinned))
        self._io_thread.start()

    def replace(self, policy: ServedPolicy | Sequence[ServedPolicy]) -> None:
        """Serve another policy, warmed up, from the next chunk on: no request is lost, and what is
        in compute is finished by the old one. From any thread.

        Raises SpecMismatch or ConfigError for one that the connected robots were not made for.
        """
        policies = _listed(policy)
        offer, old = offer_of(policies[0], *self._pinned), self.offer
        old.spec.require_equal(
            offer.spec,
            mine="the served policy",
            theirs="the new one",
            remedy="Serve it at another address.",
        )
        if offer.horizon != old.horizon:
            raise ConfigError(
                f"the new policy makes chunks of {offer.horizon} actions, the served one of "
                f"{old.horizon}. Serve it at another address."
            )
        order = _Replacement(policies, offer)
        self._orders.put(order)
        self._lines.wake()
        order.done.wait(_DRAIN_S)

    def stop(self) -> None:
        """Refuse what waits and what comes (CLOSING), finish what is in compute as far as it ends
        soon, tell every client BYE, and give the address back.

        Raises what the I/O thread died of, if it did.
        """
        self._stop_by_s = self._clock.now + _DRAIN_S
        self._lines.wake()
        if self.begun:
            self._io_thread.join()
        else:
            self._lines.close()
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join(max(_LAST_WORDS_MS / 1e3, self._stop_by_s - self._clock.now))
        if self._failure is not None:
            raise self._failure

    def status(self) -> str:
        """One line for a person: who is connected and what was answered."""
        d = self._dispatcher
        return f"sessions {d.sessions}, chunks {d.answered}, refused {d.refused}"

    def _io(self) -> None:
        try:
            self._serve()
        except BaseException as failure:  # kept for stop() to raise in the caller's thread
            _LOG.exception("the server's I/O thread died")
            self._failure = failure
        finally:
            self._lines.close(linger_ms=_LAST_WORDS_MS)

    def _serve(self) -> None:
        draining = False
        while not draining or (self._dispatcher.busy and self._clock.now < self._stop_by_s):
            self._lines.wait(self._until_due_s())
            self._obey()
            self._take_reports()
            for peer, frames in self._lines.receive(_BURST):
                if frames:
                    self._send(self._dispatcher.receive(peer, frames))
                else:
                    self._dispatcher.lost(peer)
            self._send(self._dispatcher.expire())
            if self._clock.now >= self._probe_s:
                self._probe_s = self._clock.now + PROBE_AFTER_S
                self._send(self._dispatcher.probe())
            if not math.isinf(self._stop_by_s) and not draining:
                draining = True
                self._send(self._dispatcher.drain(_STOPPING))
            self._hand_out()
            if self._observers:
                epochs = self._dispatcher.epochs
                for observer in self._observers:
                    observer.turned(epochs)
        self._send(self._dispatcher.close(_STOPPING))

    def _until_due_s(self) -> float:
        due_s = min(self._dispatcher.next_deadline_s, self._stop_by_s, self._probe_s)
        return max(0.0, due_s - self._clock.now)

    def _obey(self) -> None:
        while not self._orders.empty():
            order = self._orders.get()
            self._swap(order.policies, order.offer)
            order.done.set()

    def _take_reports(self) -> None:
        # Only this thread takes them out.
        while not self._reports.empty():
            report = self._reports.get()
            worker, job = report.worker, report.job
            if worker in self._idle:
                self._idle.remove(worker)
            if report.able and worker in self._workers:
                self._idle.append(worker)
            if job is not None:
                replies = self._dispatcher.finish(job, report.outcomes, report.ended_s)
                self._send(replies, job)

    def _hand_out(self) -> None:
        if self._instantly is not None:
            while (job := self._dispatcher.next_job()) is not None:
                job, outcomes = self._instantly(job)
                self._send(self._dispatcher.finish(job, outcomes, self._clock.now), job)
        while self._idle and (job := self._dispatcher.next_job()) is not None:
            self._idle.pop().give(job)

    def _swap(self, policies: Sequence[ServedPolicy], offer: Offer) -> None:
        """The old workers finish what they have."""
        for worker in self._workers:
            worker.stop()
        instant = getattr(policies[0], "instant", False)
        self._instantly = computation(policies[0], self._clock) if instant else None
        self._workers = (
            [] if instant else [Worker(policy, self._clock, self._report) for policy in policies]
        )
        self._idle = list(self._workers)
        for worker in self._workers:
            worker.start()
        self._send(self._dispatcher.replace(offer))

    def _report(self, report: Report) -> None:
        self._reports.put(report)
        self._lines.wake()

    def _send(self, replies: list[Reply], job: Job | None = None) -> None:
        """`job`: what they answer."""
        for observer in self._observers if replies else ():
            observer.replying(replies, job)
        for reply in replies:
            if isinstance(reply.message, EstopAck):
                _LOG.warning("emergency stop: %s", reply.message.reason or "released")
            if not self._lines.send(reply.peer, encode(reply.message, reply.tensors)):
                # Gone, or not reading: one such client must not stall the others.
                self._dispatcher.lost(reply.peer)


def _listed(policy: ServedPolicy | Sequence[ServedPolicy]) -> Sequence[ServedPolicy]:
    return policy if isinstance(policy, Sequence) else [policy]
