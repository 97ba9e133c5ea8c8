"""What becomes of what lies in out=: gone on with, added to, or moved aside. Nothing is deleted.

A run that was stopped goes on when the same plan is asked for again. Anything else that is there
moves into `earlier-<UTC>/`, unless append=true.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from loopdit.errors import ConfigError
from loopdit.eval.reporting.report import FILE as REPORT_FILE
from loopdit.eval.rollouts.recorder import VIDEOS
from loopdit.eval.runs.journal import FILE as JOURNAL_FILE
from loopdit.eval.runs.journal import Run, read_journal
from loopdit.eval.runs.results import FILE as RESULTS_FILE
from loopdit.folder_lock import alone_in

_MADE_HERE = (RESULTS_FILE, JOURNAL_FILE, REPORT_FILE, VIDEOS)


@dataclass(frozen=True)
class Decision:
    """`going_on` is the run to go on with, None to begin a new one. `move` what is there aside.
    `torn`: bytes of a line that was being written when something stopped."""

    going_on: Run | None
    move: bool
    torn: int


def decide(folder: Path, digest: str, append: bool) -> Decision:
    """What to do with `folder` for the plan `digest`. Touches nothing.

    Raises ConfigError for a journal that cannot be read.
    """
    journal = read_journal(folder)
    last = journal.runs[-1] if journal.runs else None
    goes_on = last is not None and last.digest == digest and not last.finished
    if goes_on and (append or len(journal.runs) == 1):
        return Decision(last, move=False, torn=journal.torn)
    # Without results or a journal, videos there are somebody else's.
    there = any((folder / name).exists() for name in (RESULTS_FILE, JOURNAL_FILE))
    return Decision(None, move=there and not append, torn=journal.torn)


def alone(folder: Path) -> AbstractContextManager[None]:
    """Hold `folder` against another evaluation. Raises ConfigError when one has it."""
    return alone_in(
        folder,
        ConfigError(
            f"another policy-eval is writing to out={folder}. Wait for it, or give this one "
            f"another out=."
        ),
    )


def move_aside(folder: Path, clock: Callable[[], float] = time.time) -> Path | None:
    """Move what an evaluation made in `folder` into a new folder within; None of nothing.

    `clock` gives seconds since 1970. Raises ConfigError when it cannot be moved.
    """
    there = [folder / name for name in _MADE_HERE if (folder / name).exists()]
    if not there:
        return None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(clock()))
    earlier = folder / f"earlier-{stamp}"
    number = 1
    while earlier.exists():
        number += 1
        earlier = folder / f"earlier-{stamp}-{number}"
    try:
        earlier.mkdir()
        for path in there:
            path.rename(earlier / path.name)
    except OSError as error:
        with suppress(OSError):
            earlier.rmdir()
        raise ConfigError(
            f"cannot move earlier results to {earlier}: {error.strerror}. Choose another out=."
        ) from error
    return earlier
