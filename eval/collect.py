"""policy-collect: an environment's scripted expert records demonstrations into an episode store.

Workers each hold an environment and append the episodes they finish to the one store. Which
episodes come out depends on the seeds and the noise alone, not on the number of workers or where
they run. Several collections may record into one store; a seed is recorded once.
"""

import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from loopdit.command import Command, option, run_command
from loopdit.datasets.frame_codecs import FRAMES, RAW, check_frames
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore, EpisodeWriter, files_at
from loopdit.envs.registry import ENV_NAMES
from loopdit.envs.variation import FORMS as VARIATIONS
from loopdit.envs.variation import NONE, parse_variation
from loopdit.errors import ConfigError, StoreError
from loopdit.eval.demonstration import demonstrate
from loopdit.eval.open_env import open_env
from loopdit.eval.perturb import NoiseConfig
from loopdit.eval.runs.pools import LAUNCHER_HELP, open_pool, require_launcher
from loopdit.eval.runs.worker_pool import InProcess, Pool
from loopdit.eval.seed_claims import Claims, claims_on
from loopdit.eval.seeds import FIRST_SELECTION_SEED, require_purpose
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
        "policy-collect env=stack episodes=2000 launcher=ray workers=64 out=/shared/stack.zarr",
    ),
)
_SMALLEST_FRAME = 16
# An expert that fails on more seeds than it is asked episodes, and on these, is not worth waiting.
_FAILURES_ALLOWED = 10
_EXPERT_FAILED = 0  # no episode has 0 steps


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
    workers: int = option(0, "how many record at once; 0 is one for each core")
    launcher: str = option("processes", LAUNCHER_HELP)
    out: str = option("outputs/demonstrations.zarr", "the store to write, a path or an address")
    frames: str = option(RAW, f"how frames are kept: {', '.join(FRAMES)}")
    jpeg_quality: int = option(95, "of frames=jpeg, 1 to 100")
    append: bool = option(False, "add to the store at out=, if there is one, with unused seeds")

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
        check_frames(self.frames, self.jpeg_quality)
        if self.out.startswith("memory://") and (self.workers, self.launcher) != (1, "processes"):
            raise ConfigError(
                f"out={self.out} is the memory of one process, which no worker shares. "
                f"Name a folder, or an address that several processes reach."
            )
        require_launcher(self.launcher)
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
        f"next: policy-data view {config.out}, then policy-train data={config.out}\n"
    )


def collect(config: CollectConfig) -> Collected:
    """Record `config.episodes` successful episodes with unused seeds from `config.seed` on.

    Raises ConfigError when the expert keeps failing, StoreError when the store cannot be written,
    RenderingError where no OpenGL renders. Whatever stops it, the finished episodes are kept.
    """
    env = open_env(config.env, config.image_size, variation=config.variation)
    spec = env.policy_spec
    env.close()
    writer = _writer(config, spec)
    with claims_on(writer.path) as claims:
        return _Collection(config, writer, claims).run()


def _writer(config: CollectConfig, spec: PolicySpec) -> EpisodeWriter:
    try:
        return EpisodeWriter.create(
            config.out, spec, _provenance(config), config.frames, config.jpeg_quality
        )
    except StoreError:
        if not (config.append and files_at(config.out).exists()):
            raise
        return EpisodeWriter.resume(config.out, spec)


class _Collection:
    """One run: seeds go out to workers in rounds until enough of them succeeded.

    A round asks for exactly as many episodes as are missing, so that the seeds tried do not depend
    on which worker is quick.
    """

    def __init__(self, config: CollectConfig, writer: EpisodeWriter, claims: Claims) -> None:
        self._config = config
        self._writer = writer
        self._claims = claims
        self._lengths: list[int] = []
        self._failed: list[int] = []

    def run(self) -> Collected:
        try:
            with (
                closing(self._pool()) as pool,
                Progress(f"collecting {self._config.env}", self._config.episodes) as progress,
            ):
                progress.update(0)
                while missing := self._missing():
                    self._round(pool, self._claims.take(self._config.seed, missing), progress)
        except KeyboardInterrupt:
            sys.stdout.write(f"Stopped: {self._kept()}. {self._how_to_go_on()}\n")
            sys.stdout.flush()
            raise
        return Collected(len(self._lengths), sum(self._lengths), tuple(self._failed))

    def _pool(self) -> Pool[int, int]:
        """One worker is this process: nothing to start, and a debugger gets to see it."""
        workers = min(self._config.workers or usable_cores(), self._config.episodes)
        start = partial(_start, self._config, self._writer)
        if workers == 1 and self._config.launcher == "processes":
            return InProcess(start())
        return open_pool(start, workers, self._config.launcher)

    def _round(self, pool: Pool[int, int], seeds: list[int], progress: Progress) -> None:
        require_purpose(seeds[0], seeds[-1] - seeds[0] + 1, "training")
        for finished in pool.run(seeds):
            if finished.result is None:
                raise StoreError(
                    f"seed {finished.job} ended {finished.restarts} workers, one after the other "
                    f"(killed, or out of memory); {self._kept()}. {self._how_to_go_on()} Fewer "
                    f"workers= need less memory."
                )
            if finished.result == _EXPERT_FAILED:
                self._failed.append(finished.job)
                self._check_failures()
            else:
                self._lengths.append(finished.result)
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

    def _kept(self) -> str:
        stored = len(EpisodeStore.open(self._config.out).episodes)
        return f"{self._config.out} is readable and holds {stored} episodes"

    def _how_to_go_on(self) -> str:
        # Counted in the store: an episode may be in it that its worker did not come to tell of.
        records = EpisodeStore.open(self._config.out).episodes
        left = self._config.episodes - sum(r.seed in self._claims.mine for r in records)
        return f"Go on with append=true episodes={left}." if left else "Nothing is missing."


def _start(config: CollectConfig, writer: EpisodeWriter) -> Callable[[int], int]:
    """A worker: an environment, made once because that costs as much as several episodes."""
    env = open_env(config.env, config.image_size, variation=config.variation)
    # A worker that died may have stored the episode whose seed its successor is given again.
    stored = {r.seed: r.length for r in EpisodeStore.open(config.out).episodes}

    def record(seed: int) -> int:
        """Steps of the episode that was stored, or _EXPERT_FAILED."""
        if seed in stored:
            return stored[seed]
        episode = demonstrate(env, seed, config.noise, config.hold_steps)
        return _EXPERT_FAILED if episode is None else writer.append(episode).length

    return record


def _provenance(config: CollectConfig) -> dict[str, Any]:
    where_and_how = ("out", "append", "workers", "launcher", "frames")
    settings = {key: value for key, value in asdict(config).items() if key not in where_and_how}
    return {
        "made_by": COMMAND.name,
        "labels": "the expert's clean actions; perturbed ones were executed",
        "settings": settings,
        "recorded_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine_and_versions(),
    }
