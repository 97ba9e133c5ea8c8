"""policy-collect: an environment's scripted expert records demonstrations into an episode store.

Worker processes each hold an environment and append the episodes they finish to the one store.
Which episodes come out depends on the seeds and the noise alone, not on the number of workers.
"""

import multiprocessing
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loopdit.command import Command, option, run_command
from loopdit.datasets.store import EpisodeStore, EpisodeWriter
from loopdit.envs.registry import ENV_NAMES
from loopdit.envs.variation import FORMS as VARIATIONS
from loopdit.envs.variation import NONE, parse_variation
from loopdit.errors import ConfigError, StoreError
from loopdit.eval.demonstration import demonstrate
from loopdit.eval.open_env import open_env
from loopdit.eval.perturb import NoiseConfig
from loopdit.eval.runs.worker_process import end_with_parent, interrupts_deferred
from loopdit.eval.seeds import FIRST_SELECTION_SEED, require_purpose
from loopdit.folder_lock import alone_in
from loopdit.machine import machine_and_versions, usable_cores
from loopdit.progress import Progress

COMMAND = Command(
    name="policy-collect",
    folder="collect",
    summary="record a scripted expert's demonstrations into an episode store.",
    examples=(
        "policy-collect env=lift episodes=200 out=lift.zarr",
        "policy-collect recipe=demo out=lift.zarr",
        "policy-collect env=lift episodes=100 out=lift.zarr append=true",
    ),
)
_SMALLEST_FRAME = 16
# An expert that fails on more seeds than it is asked episodes, and on these, is not worth waiting.
_FAILURES_ALLOWED = 10


@dataclass(frozen=True)
class CollectConfig:
    """What to record, how much of it, and where to."""

    env: str = option("lift", f"environment: {', '.join(ENV_NAMES)}")
    episodes: int = option(200, "how many successful episodes to record; failed ones are dropped")
    seed: int = option(0, f"first seed, below {FIRST_SELECTION_SEED} (held out for evaluation)")
    image_size: int = option(64, "height and width of the camera frames, pixels; 0 for none")
    variation: str = option(NONE, f"what differs between episodes beyond the task: {VARIATIONS}")
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    hold_steps: int = option(3, "control steps recorded after success")
    workers: int = option(0, "processes; 0 is one for each core")
    out: str = option("outputs/demonstrations.zarr", "the store to write")
    append: bool = option(False, "go on with the store at out=, after its last seed")

    def __post_init__(self) -> None:
        for name, least in {"episodes": 1, "seed": 0, "hold_steps": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}.")
        if self.image_size and self.image_size < _SMALLEST_FRAME:
            raise ConfigError(
                f"image_size={self.image_size} must be at least {_SMALLEST_FRAME}, or 0 for no "
                f"cameras."
            )
        parse_variation(self.variation)
        if not self.out:
            raise ConfigError("out= is empty: name the store to write.")
        if self.workers < 0:
            raise ConfigError(f"workers={self.workers} must be 0 (one for each core) or more.")
        require_purpose(self.seed, self.episodes, "training")


@dataclass(frozen=True)
class Collected:
    """What a run recorded: episodes and control steps stored, seeds on which the expert failed."""

    episodes: int
    steps: int
    failed_seeds: tuple[int, ...]


def main() -> None:
    """Entry point of `policy-collect`."""
    run_command(COMMAND, CollectConfig, run)


def run(config: CollectConfig) -> None:
    """Record, and print what came of it."""
    collected = collect(config)
    store = EpisodeStore.open(config.out)
    failed = len(collected.failed_seeds)
    sys.stdout.write(
        f"{collected.episodes} episodes ({collected.steps} steps) recorded, "
        f"{failed} failed and dropped; {config.out} holds {len(store.episodes)} episodes.\n"
    )


def collect(config: CollectConfig) -> Collected:
    """Record `config.episodes` successful episodes with the seeds from `config.seed` on.

    Raises ConfigError when the expert keeps failing, StoreError when the store cannot be written,
    RenderingError where no OpenGL renders. Whatever stops it, the finished episodes are kept.
    """
    env = open_env(config.env, config.image_size, variation=config.variation)
    spec = env.policy_spec
    env.close()
    going_on = config.append and Path(config.out).exists()
    if going_on:
        writer = EpisodeWriter.resume(config.out, spec)
    else:
        writer = EpisodeWriter.create(config.out, spec, _provenance(config))
    # Another collection would record the same seeds again.
    busy = StoreError(
        f"another policy-collect is recording into {config.out}. Wait for it, or give this one "
        f"another out=; policy-collect uses every core by itself."
    )
    with alone_in(Path(config.out), busy):
        known = [record.seed for record in EpisodeStore.open(config.out).episodes]
        first = max([config.seed, *(seed + 1 for seed in known)])
        return _Collection(config, writer).run(first)


class _Collection:
    """One run: seeds go out to workers in rounds until enough of them succeeded.

    A round asks for exactly as many episodes as are missing, so that the seeds tried do not depend
    on which worker is quick.
    """

    def __init__(self, config: CollectConfig, writer: EpisodeWriter) -> None:
        self._config = config
        self._writer = writer
        self._stored_before = self._stored()
        self._lengths: list[int] = []
        self._failed: list[int] = []

    def run(self, seed: int) -> Collected:
        workers = min(self._config.workers or usable_cores(), self._config.episodes)
        executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _start_worker, (self._config,)
        )
        try:
            with Progress(f"collecting {self._config.env}", self._config.episodes) as progress:
                progress.update(0)
                while missing := self._missing():
                    require_purpose(seed, missing, "training")
                    self._round(executor, range(seed, seed + missing), progress)
                    seed += missing
        except KeyboardInterrupt:
            executor.shutdown(wait=True, cancel_futures=True)
            sys.stdout.write(f"Stopped: {self._kept()}. {self._how_to_go_on()}\n")
            sys.stdout.flush()
            raise
        except BrokenProcessPool as error:
            raise StoreError(
                f"a worker process died (killed, or out of memory); {self._kept()}. "
                f"{self._how_to_go_on()} Fewer workers= need less memory."
            ) from error
        finally:
            # Episodes that are under way are finished and stored: seconds, and nothing is lost.
            executor.shutdown(wait=True, cancel_futures=True)
        return Collected(len(self._lengths), sum(self._lengths), tuple(self._failed))

    def _round(self, executor: ProcessPoolExecutor, seeds: range, progress: Progress) -> None:
        with interrupts_deferred():
            pending: dict[Future[int | None], int] = {
                executor.submit(_record, self._writer, seed, self._config): seed for seed in seeds
            }
        for future in as_completed(pending):
            length = future.result()
            if length is None:
                self._failed.append(pending[future])
                self._check_failures()
            else:
                self._lengths.append(length)
            progress.update(len(self._lengths), self._note())

    def _missing(self) -> int:
        return self._config.episodes - len(self._lengths)

    def _note(self) -> str:
        return f"{len(self._lengths)}/{self._config.episodes} episodes, {len(self._failed)} failed"

    def _check_failures(self) -> None:
        if len(self._failed) > _FAILURES_ALLOWED + self._config.episodes:
            tried = len(self._failed) + len(self._lengths)
            raise ConfigError(
                f"the expert failed on {len(self._failed)} of {tried} seeds; {self._kept()}. "
                f"Lower noise.translation_m or noise.kick_probability."
            )

    def _stored(self) -> int:
        return len(EpisodeStore.open(self._config.out).episodes)

    def _kept(self) -> str:
        return f"{self._config.out} is readable and holds {self._stored()} episodes"

    def _how_to_go_on(self) -> str:
        # Counted in the store: what was under way was finished, and nobody waited for it.
        left = self._config.episodes - (self._stored() - self._stored_before)
        return f"Go on with append=true episodes={left}." if left else "Nothing is missing."


# A worker's environment, made once: making one costs as much as several episodes.
_worker_env: list[Any] = []


def _start_worker(config: CollectConfig) -> None:
    end_with_parent()
    _worker_env.append(open_env(config.env, config.image_size, variation=config.variation))


def _record(writer: EpisodeWriter, seed: int, config: CollectConfig) -> int | None:
    """Steps of the episode that was stored, None when the expert failed."""
    episode = demonstrate(_worker_env[0], seed, config.noise, config.hold_steps)
    return None if episode is None else writer.append(episode).length


def _provenance(config: CollectConfig) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "append")}
    return {
        "made_by": COMMAND.name,
        "labels": "the expert's clean actions; perturbed ones were executed",
        "settings": settings,
        "recorded_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine_and_versions(),
    }
