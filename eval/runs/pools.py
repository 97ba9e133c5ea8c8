"""Where a command's workers run: launcher=processes on this machine, launcher=ray beyond it."""

from typing import TypeVar

from loopdit.errors import ConfigError
from loopdit.eval.runs.worker_pool import Pool, ProcessPool, Start

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

LAUNCHERS = ("processes", "ray")
LAUNCHER_HELP = f"where workers run: {' or '.join(LAUNCHERS)}"


def require_launcher(name: str) -> None:
    """Raise ConfigError for a launcher that there is not."""
    if name not in LAUNCHERS:
        raise ConfigError(f"launcher={name} is unknown. Use {' or '.join(LAUNCHERS)}.")


def open_pool(start: Start[JobT, ResultT], workers: int, launcher: str) -> Pool[JobT, ResultT]:
    """`workers` workers, each of which calls `start` once. Raises ConfigError without Ray."""
    if launcher == "ray":
        from loopdit.eval.runs.ray_pool import RayPool  # an extra

        return RayPool(start, workers)
    return ProcessPool(start, workers)
