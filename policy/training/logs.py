"""Where a training's numbers go besides metrics.jsonl: TensorBoard, Weights & Biases, trackio.

Each is used only when asked for, and said to be missing before training where it is.
"""

import shutil
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from loopdit.command import option
from loopdit.errors import ConfigError

TENSORBOARD = "tensorboard"
_RUN_ID = "run_id"  # a file: a resumed training goes on in the same run of its tracker
_PACKAGES = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True)
class LogConfig:
    """What is told of a training, and where."""

    every: int = option(50, "steps between two rows of metrics.jsonl")
    tensorboard: bool = option(False, "write TensorBoard files to out/tensorboard")
    wandb: str = option("", "project at Weights & Biases to log to; empty: none")
    trackio: str = option("", "project of trackio to log to; empty: none")

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"log.every={self.every} must be at least 1.")


class Logger(Protocol):
    """Something that keeps numbers by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep these, by name."""
        ...

    def close(self) -> None:
        """Write out what is left."""
        ...


def require_packages(config: LogConfig) -> None:
    """Raise ConfigError for a tracker that is asked for and not installed."""
    for name in _PACKAGES:
        if getattr(config, name) and find_spec(name) is None:
            asked = str(getattr(config, name)).lower() if name == TENSORBOARD else "..."
            raise ConfigError(
                f"log.{name}={asked}: the package {name} is not installed. "
                f"pip install {name}, or leave it out: metrics.jsonl is always written."
            )


@contextmanager
def open_loggers(
    config: LogConfig, out: Path, settings: Mapping[str, Any], step: int
) -> Generator[list[Logger]]:
    """Those asked for. `settings` describe the run; rows after `step` are going to be done again.

    Raises ConfigError like `require_packages`.
    """
    require_packages(config)
    loggers: list[Logger] = []
    try:
        if config.tensorboard:
            loggers.append(TensorBoardLogger(out / TENSORBOARD, step))
        if config.wandb:
            loggers.append(_wandb(config.wandb, out, settings))
        if config.trackio:
            loggers.append(_trackio(config.trackio, out, settings))
        yield loggers
    finally:
        for logger in loggers:
            logger.close()


class TensorBoardLogger:
    """Event files in a folder; `tensorboard --logdir` shows several runs beside each other."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A scalar for each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)  # pyright: ignore[reportUnknownMemberType]

    def close(self) -> None:
        """Flush the files."""
        self._writer.close()  # pyright: ignore[reportUnknownMemberType]


class TrackedRun:
    """A run of wandb's or of trackio's, whose calls are the same."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._newest = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row. What comes late, as an evaluation does, goes to the newest step: wandb drops
        what has an earlier one."""
        self._newest = max(step, self._newest)
        late = {"of_step": float(step)} if step < self._newest else {}
        self._run.log({**values, **late}, step=self._newest)

    def close(self) -> None:
        """Upload what is left."""
        self._run.finish()


def new_run(out: Path) -> None:
    """Forget what an earlier training in `out` logged: another one begins there."""
    (out / _RUN_ID).unlink(missing_ok=True)
    shutil.rmtree(out / TENSORBOARD, ignore_errors=True)


def _wandb(project: str, out: Path, settings: Mapping[str, Any]) -> TrackedRun:
    import wandb  # pyright: ignore[reportMissingImports] - optional, and not installed for the checks

    run = wandb.init(
        project=project,
        name=out.name,
        id=_run_id(out),
        resume="allow",
        dir=str(out),
        config=dict(settings),
    )
    return TrackedRun(run)


def _trackio(project: str, out: Path, settings: Mapping[str, Any]) -> TrackedRun:
    import trackio  # pyright: ignore[reportMissingImports] - optional, and not installed for the checks

    name = f"{out.name}-{_run_id(out)}"
    return TrackedRun(
        trackio.init(project=project, name=name, resume="allow", config=dict(settings))
    )


def _run_id(out: Path) -> str:
    path = out / _RUN_ID
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8])
    return path.read_text()
