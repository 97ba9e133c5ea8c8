"""policy-eval replay: play a rollout's stored actions again in a fresh environment.

Says whether the physics came out the same to the bit, or at which control step it parted: then
something decides it that the seed does not, or the simulator is another one. The policy is not
asked; what it did is in the actions. Without a seed it lists the rollouts, failures first.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loopdit.command import Command, option
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment
from loopdit.eval.open_env import DEFAULT_IMAGE_SIZE, open_env
from loopdit.eval.reporting.video import require_encoder
from loopdit.eval.rollouts.recorder import VIDEOS, Recorder, slug
from loopdit.eval.rollouts.rollout import ERROR, FAILURE, OUTCOMES, SUCCESS, UNSTABLE
from loopdit.eval.rollouts.rollout_record import Episode, from_record, state_crc
from loopdit.eval.runs.journal import FILE, Run, read_journal
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-eval replay",
    folder="eval_replay",
    summary="play rollouts of an evaluation again, or list them, failures first.",
    examples=(
        "policy-eval replay out=outputs/eval",
        "policy-eval replay out=outputs/eval failures=true",
        "policy-eval replay out=outputs/eval seed=900003 loops=2 video=true",
    ),
)
_ORDER = (ERROR, UNSTABLE, FAILURE, SUCCESS)
_ANY = -1
_NUMBERS = ("loops", "steps", "rate_hz")
_TEXTS = ("delay", "execution", "variation", "fault", "adaptive")


@dataclass(frozen=True)
class ReplayConfig:
    """Which rollouts of an evaluation. What is not given may be anything."""

    out: str = option("outputs/eval", f"folder of the evaluation, with its {FILE}")
    seed: int = option(_ANY, "play the rollouts from this seed; -1 lists rollouts instead")
    failures: bool = option(False, "only those without success")
    who: str = option("", "label or kind of the policy, or a control: zeros, random, expert")
    loops: int = option(_ANY, "only this depth K")
    steps: int = option(_ANY, "only this many denoising steps")
    delay: str = option("", "only under this delay")
    execution: str = option("", "only this way of playing chunks")
    rate_hz: float = option(-1.0, "only this many actions a second")
    variation: str = option("", "only under this variation")
    fault: str = option("", "only under this fault")
    adaptive: str = option("", "only with this rule for fewer loops than K")
    video: bool = option(False, f"make a video of each that is played, in {VIDEOS}/")


@dataclass(frozen=True)
class Stored:
    """One rollout of the journal, and the run it belongs to."""

    run: Run
    episode: Episode

    @property
    def who(self) -> str:
        """Who drove it."""
        about = self.run.header["about"]
        return self.episode.job.subject or about["label"] or about["kind"]

    @property
    def text(self) -> str:
        """A rollout in a few words."""
        job = self.episode.job
        return f"{self.who}, {job.condition.text}, seed {job.seed}"


@dataclass(frozen=True)
class Replayed:
    """`parted_at` is the control step after which the state differed (0: the start), None where it
    never did. `simulator` is the one it was played in."""

    parted_at: int | None
    steps: int
    simulator: str


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-eval replay`; `argv` without the command's name."""
    run_subcommand(COMMAND, ReplayConfig, run, argv, places=("out",))


def run(config: ReplayConfig) -> None:
    """List, or play and say how it went. Raises ConfigError when nothing fits, or when something
    that was played came out another way in the same simulator."""
    found = chosen(config)
    if config.seed == _ANY:
        _list(found, config)
        return
    if config.video:
        require_encoder()
    parted: list[str] = []
    for stored in found:
        video = Path(config.out, VIDEOS, _video_name(stored)) if config.video else None
        sys.stdout.write(f"{stored.text}: {_verdict(stored, replay(stored, video), parted)}\n")
        if video is not None:
            sys.stdout.write(f"  {video}\n")
    if parted:
        raise ConfigError(
            f"{len(parted)} of {len(found)} rollouts did not come out the same in the same "
            f"simulator: {parted[0]}. The environment is not deterministic, or has changed since."
        )


def chosen(config: ReplayConfig) -> list[Stored]:
    """The rollouts that fit, failures first. Raises ConfigError when there are none."""
    runs = read_journal(Path(config.out)).runs
    every = [Stored(run, from_record(record)) for run in runs for record in run.rollouts]
    if not every:
        raise ConfigError(
            f"{Path(config.out, FILE)} has no rollouts. Evaluate into out={config.out} first."
        )
    found = [stored for stored in every if _fits(stored, config)]
    if not found:
        seeds = sorted({stored.episode.job.seed for stored in every})
        raise ConfigError(
            f"no rollout in {config.out} fits. It has seeds {seeds[0]} to {seeds[-1]} of "
            f"{', '.join(sorted({stored.who for stored in every}))}; policy-eval replay "
            f"out={config.out} lists them."
        )
    assert set(_ORDER) == set(OUTCOMES)
    return sorted(found, key=_place)


def _place(stored: Stored) -> tuple[int, bool, int, str]:
    """Failures first, and the policy's before those of controls."""
    job = stored.episode.job
    outcome = _ORDER.index(stored.episode.rollout.outcome)
    return outcome, bool(job.subject), job.seed, stored.text


def replay(stored: Stored, video: Path | None = None) -> Replayed:
    """Play it in a fresh environment. Raises ConfigError for one without actions."""
    episode = stored.episode
    if episode.error or len(episode.rollout.actions) == 0:
        raise ConfigError(
            f"{stored.text} raised an error and has no actions to play: {episode.error}. Give its "
            f"evaluation's command with seed={episode.job.seed} episodes=1 and another out=."
        )
    plan = stored.run.header["plan"]["environment"]
    shapes = plan["image_shapes"]
    condition = episode.job.condition
    size = shapes[0][0] if shapes else DEFAULT_IMAGE_SIZE
    env = open_env(plan["env"], size, condition.rate_hz, condition.variation)
    try:
        recorder = Recorder(env) if video is not None else None
        env.observing = recorder is not None
        parted_at = play(env, episode, recorder)
        if recorder is not None and video is not None:
            recorder.write(video)
        return Replayed(parted_at, len(episode.rollout.actions), env.simulator)
    finally:
        env.close()


def play(env: Environment, episode: Episode, recorder: Recorder | None) -> int | None:
    """The first step after which the state was another one. Plays on to the end, for the video."""
    observation, _ = env.reset(seed=episode.job.seed)
    trace = [state_crc(env.state())]
    ended = False
    for action in episode.rollout.actions:
        if recorder is not None:
            recorder.add(observation)
        if ended:  # sooner than it was
            break
        observation, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
        trace.append(state_crc(env.state()))
    if recorder is not None:
        recorder.add(observation)
    again, before = np.array(trace, np.uint32), episode.trace
    common = min(len(again), len(before))
    differ = np.flatnonzero(again[:common] != before[:common])
    if len(differ):
        return int(differ[0])
    return None if len(again) == len(before) and ended else common


def _verdict(stored: Stored, played: Replayed, parted: list[str]) -> str:
    """In words; what parted in the same simulator is added to `parted`."""
    outcome = stored.episode.rollout.outcome
    before = stored.run.header["plan"]["environment"]["simulator"]
    other = "" if before == played.simulator else f" (was {before}, is {played.simulator})"
    if played.parted_at is None:
        return f"bit-equal over {played.steps} control steps, {outcome}{other}"
    if not other:
        parted.append(f"{stored.text} parted after step {played.parted_at}")
    return f"differs after control step {played.parted_at} of {played.steps}{other}; was {outcome}"


def _fits(stored: Stored, config: ReplayConfig) -> bool:
    job = stored.episode.job
    numbers = {name: getattr(config, name) for name in _NUMBERS}
    texts = {name: getattr(config, name) for name in _TEXTS}
    return (
        config.seed in (_ANY, job.seed)
        and config.who in ("", stored.who)
        and not (config.failures and stored.episode.rollout.success)
        and all(value in (_ANY, getattr(job.condition, name)) for name, value in numbers.items())
        and all(value in ("", getattr(job.condition, name)) for name, value in texts.items())
    )


def _list(found: Sequence[Stored], config: ReplayConfig) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("outcome", "seed", "who", "condition", "stage", "steps"):
        table.add_column(name, justify="right" if name in ("seed", "steps") else "left")
    for stored in found:
        job, done = stored.episode.job, stored.episode.rollout
        words = (done.outcome, str(job.seed), stored.who, job.condition.text)
        table.add_row(*map(escape, (*words, done.stage, str(done.steps))))
    console = Console()
    console.print(table)
    console.print(f"Watch the first one: {_command(found, config)}", soft_wrap=True, markup=False)


def _command(found: Sequence[Stored], config: ReplayConfig) -> str:
    """What plays the first of `found` and, as far as options tell them apart, no other."""
    seed, who = found[0].episode.job.seed, found[0].who
    same = [s for s in found if (s.episode.job.seed, s.who) == (seed, who)]
    conditions = [stored.episode.job.condition for stored in same]
    told = {
        name: getattr(conditions[0], name)
        for name in (*_NUMBERS, *_TEXTS)
        if len({getattr(condition, name) for condition in conditions}) > 1
    }
    failures = {"failures": "true"} if config.failures else {}
    options = {"out": config.out, "seed": seed, "who": who, **told, **failures, "video": "true"}
    return shlex.join(["policy-eval", "replay", *(f"{k}={v}" for k, v in options.items())])


def _video_name(stored: Stored) -> str:
    return f"replay-{slug(stored.text)}.mp4"
