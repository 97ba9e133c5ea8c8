"""Ctrl-C and a scheduler's SIGTERM end a training between two steps, never within one.

A step that is cut in its middle leaves weights, optimizer and average of different steps, and what
is saved then is no point of the run. Asked a second time, it stops at once and saves nothing.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The training was asked to stop and has: all processes after the same step, which is saved."""


class StopRequest:
    """A context manager; `asked` turns true. Only a main thread can be asked, by Python's rules."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}  # pyright: ignore[reportPrivateUsage] - typeshed's name for it

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
