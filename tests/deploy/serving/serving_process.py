"""`policy-serve` in a process of its own, and what it printed, read as it comes."""

import queue
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO


class Serving:
    def __init__(self, *options: str, within: Sequence[str] = ()) -> None:
        """`within`: a command that runs the rest of its arguments somewhere else."""
        self.process = subprocess.Popen(
            [*within, sys.executable, "-m", "loopdit.deploy.serving.command", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stderr
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: queue.Queue[str] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines)),
            threading.Thread(target=self._read, args=(self.process.stderr, self._errors)),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: IO[str], lines: "queue.Queue[str]") -> None:
        for line in stream:
            lines.put(line)

    def until(self, start: str) -> list[str]:
        """The lines up to the one that begins with `start`."""
        lines: list[str] = []
        while not (lines and lines[-1].startswith(start)):
            try:
                lines.append(self._lines.get(timeout=60).rstrip("\n"))
            except queue.Empty:
                said = "".join(self._errors.queue)
                raise AssertionError(f"never said {start!r}, but {lines} and {said}") from None
        return lines

    def next_error(self) -> str:
        """The next line on stderr."""
        return self._errors.get(timeout=60)

    def end(self) -> tuple[int, str]:
        """Exit status, and what was not read of stderr."""
        status = self.process.wait(timeout=60)
        self.join()
        return status, "".join(self._errors.get_nowait() for _ in range(self._errors.qsize()))

    def join(self) -> None:
        for reader in self._readers:
            reader.join()


@contextmanager
def serving(*options: str, within: Sequence[str] = ()) -> Generator[Serving]:
    server = Serving(*options, within=within)
    with server.process:
        try:
            yield server
        finally:
            server.process.kill()
            server.join()
