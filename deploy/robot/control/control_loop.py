"""Control mode's sockets, threads and time; what is decided is in `controller`.

One thread ticks: it takes what came, asks for a chunk, acts, publishes, and sleeps until the next
tick. Another one computes chunks. Nothing in the ticking thread waits for anything but time.
"""

import logging
import time
from collections.abc import Callable

from loopdit.deploy.clock import Clock
from loopdit.deploy.garbage import collect_again, collect_young, stop_collecting
from loopdit.deploy.messages import Estop, EstopAck, Message, Ping, Pong, Reset, ResetAck, WireError
from loopdit.deploy.robot.control.controller import Acted, Controller
from loopdit.deploy.robot.control.inference import Inference
from loopdit.deploy.robot.control.messages import Action, Status
from loopdit.deploy.robot.control.observer import ControlObserver
from loopdit.deploy.robot.control.pacer import Pacer, Tick
from loopdit.deploy.robot.control.real_time import raised_priority
from loopdit.deploy.robot.control.seen_history import Seen
from loopdit.deploy.robot.control.sockets import ControlSockets
from loopdit.deploy.robot.control.statistics import Timings
from loopdit.deploy.serving.observation_check import check_observation
from loopdit.deploy.serving.offer import Offer

_LOG = logging.getLogger(__name__)
_STATUS_PERIOD_S = 1.0


class ControlLoop:
    """`run` ticks until `stop`, over sockets that are somebody else's to close."""

    def __init__(
        self,
        controller: Controller,
        inference: Inference,
        offer: Offer,
        period_s: float,
        sockets: ControlSockets,
        instruction: str,
        clock: Clock,
        on_status: Callable[[Status], None],
    ) -> None:
        self._controller = controller
        self._inference = inference
        self._offer = offer
        # What a robot observes; the rest of what the policy is given is kept here.
        self._observed = offer.spec.without_committed().without_history()
        self._period_s = period_s
        self._instruction = instruction
        self._clock = clock
        self._on_status = on_status
        self._stopping = False
        self._commands = sockets.commands
        self._publisher = sockets.publisher
        self._subscriber = sockets.subscriber
        self._observers: list[ControlObserver] = []
        self._late, self._chunk_time = Timings(), Timings()
        self._ticks = self._missed = self._seq = self._chunks = self._statuses = 0
        self._ran = offer.planner.rungs[0]
        self._refused = 0
        self._started_s = 0.0
        self._status_s, self._status_ticks = 0.0, -1  # the first tick ends no period

    def observe(self, observer: ControlObserver) -> None:
        """Tell it what is seen and done; before `run`."""
        self._observers.append(observer)

    def stop(self) -> None:
        """Make `run` return after the tick under way; from any thread or signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Tick until `stop`, in the calling thread."""
        self._inference.start()
        if not raised_priority():
            _LOG.warning(
                "no real-time priority (allow it with an rtprio limit): other programs may make "
                "actions late"
            )
        pacer = Pacer(self._period_s, self._clock, time.sleep)
        stop_collecting()
        self._started_s = self._status_s = self._clock.now
        try:
            while not self._stopping:
                self._tick(pacer.wait())
        finally:
            collect_again()
            self._inference.stop()

    def _tick(self, tick: Tick) -> None:
        self._ticks += 1 + tick.missed
        self._status_ticks += 1
        if tick.missed:
            self._missed += tick.missed
            self._controller.safety.missed(tick.missed)
        self._take()
        request = self._controller.request()
        if request is not None:
            self._inference.ask(request)
        acted = self._controller.act()
        if acted is not None:
            self._publish(acted, tick.due_s)
            for observer in self._observers:
                observer.acted(self._controller.step - 1, acted)
        self._late.add(self._clock.now - tick.due_s)
        if self._clock.now - self._status_s >= _STATUS_PERIOD_S:
            self._say_status()
            collect_young()

    def _take(self) -> None:
        for peer, message in self._commands.waiting():
            self._command(peer, message)
        came = self._subscriber.newest()
        if came is not None:
            observed, tensors = came
            try:
                check_observation(self._observed, tensors)
            except WireError as fault:
                self._subscriber.refuse(str(fault))
            else:
                step = min(observed.applied, self._controller.step)
                seen = Seen(
                    {name: value.copy() for name, value in tensors.items()},
                    step if observed.stamped else self._controller.step,
                    observed.instruction or self._instruction,
                    observed.episode,
                )
                self._controller.observe(seen)
                for observer in self._observers:
                    observer.seen(seen)
        if self._subscriber.refused != self._refused:
            if not self._refused:
                _LOG.warning("an observation cannot be used: %s", self._subscriber.fault)
            self._refused = self._subscriber.refused
        computed = self._inference.done()
        if computed is not None:
            self._controller.answer(computed.request, computed.actions)
            self._chunk_time.add(computed.took_s)
            self._ran = computed.rung
            self._chunks += computed.actions is not None

    def _publish(self, acted: Acted, due_s: float) -> None:
        self._seq += 1
        message = Action(
            seq=self._seq,
            due_ns=_nanoseconds(due_s),
            sent_ns=_nanoseconds(self._clock.now),
            source=acted.source,
            changed_by=acted.changed_by,
            episode=self._controller.episode,
        )
        self._publisher.send(message, {"action": acted.action})

    def _command(self, peer: bytes, message: Message) -> None:
        controller = self._controller
        match message:
            case Ping():
                self._commands.answer(peer, self._pong(message.seq))
            case Estop():
                if message.pressed:
                    controller.safety.press(message.reason or "a client pressed it")
                elif controller.safety.pressed:
                    controller.reset()
                pressed, reason = controller.safety.pressed, controller.safety.reason
                self._commands.answer(peer, EstopAck(message.seq, pressed, reason))
            case Reset():
                if not controller.safety.pressed:  # that is released by whoever says so in words
                    controller.reset()
                self._commands.answer(peer, ResetAck(message.seq, message.epoch, message.seed))
            case _:
                self._commands.refuse(peer, message)

    def _pong(self, seq: int) -> Pong:
        return Pong(
            seq=seq,
            model_id=self._offer.model_id,
            busy_us=0,
            idle_us=0,
            queued=0,
            sessions=0,
            answered=self._chunks,
            refused=self._refused,
            uptime_us=round((self._clock.now - self._started_s) * 1e6),
        )

    def _say_status(self) -> None:
        now = self._clock.now
        self._statuses += 1
        status = Status(
            seq=self._statuses,
            ticks=self._ticks,
            missed=self._missed,
            rate_hz=self._status_ticks / (now - self._status_s),
            late_us=self._late.taken(),
            chunk_us=self._chunk_time.taken(),
            loops=self._ran.loops,
            steps=self._ran.steps,
            chunks=self._chunks,
            stopped_by=self._controller.safety.stopped_by,
            acted=dict(self._controller.safety.acted),
        )
        self._status_s, self._status_ticks = now, 0
        self._publisher.send(status)
        self._on_status(status)


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))
