"""The rollouts of an evaluation as the page lists them: failures first, videos beside them.

Errors come before broken physics, failures and successes; then by seed, so that one start under
several conditions stands together. The controls are left out but for the expert, whose failures
say something about the task.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopdit.eval.reporting.report_rows import AXES, axes_of, condition_text
from loopdit.eval.reporting.table import policy_text
from loopdit.eval.reporting.video import last_picture
from loopdit.eval.rollouts.rollout import ERROR, FAILURE, SUCCESS, UNSTABLE
from loopdit.eval.runs.results import Row
from loopdit.eval.statistics.seed_pairs import outcome

# A page of more would be slow on a phone. All of them are in eval.json.
MOST = 1500
_FIRST_FAILURES, _FIRST_SUCCESSES = 8, 4
_PLAIN = "undisturbed"
WORDS = {
    ERROR: "raised an error",
    UNSTABLE: "broken physics",
    FAILURE: "failed",
    SUCCESS: "success",
}


@dataclass(frozen=True)
class Listed:
    """One rollout. steps: control steps, `seconds` of the world's time. condition: its number
    among `conditions`."""

    seed: int
    outcome: str
    who: str
    condition: int
    stage: str
    steps: int
    seconds: float
    error: str

    @property
    def words(self) -> str:
        """The outcome, for people."""
        return WORDS[self.outcome]


@dataclass(frozen=True)
class Clip:
    """A video that exists and how it ends, as data: URIs, and the rollout it shows."""

    src: str
    poster: str
    of: Listed


@dataclass(frozen=True)
class RolloutList:
    """`conditions` in words; every rollout and every video, failures first."""

    conditions: list[str]
    rollouts: list[Listed]
    clips: list[Clip]

    @property
    def outcomes(self) -> list[str]:
        """Those that occur, in order."""
        found = {one.outcome for one in self.rollouts} | {clip.of.outcome for clip in self.clips}
        return [name for name in WORDS if name in found]

    @property
    def first_clips(self) -> list[Clip]:
        """A few failures, then a few successes: as many as a phone plays without effort."""
        failures = [clip for clip in self.clips if clip.of.outcome != SUCCESS]
        successes = [clip for clip in self.clips if clip.of.outcome == SUCCESS]
        return [*failures[:_FIRST_FAILURES], *successes[:_FIRST_SUCCESSES]]

    @property
    def more_clips(self) -> list[Clip]:
        """The others."""
        return [clip for clip in self.clips if clip not in self.first_clips]

    @property
    def short(self) -> list[Listed]:
        """As many as a page has room for, the failures first."""
        return self.rollouts[:MOST]


def rollout_list(folder: Path, rows: Sequence[Row], controls: Sequence[Row] = ()) -> RolloutList:
    """Everything that `rows`, and among `controls` the expert, list. Videos are read from
    `folder`; one that is missing there is left out."""
    experts = [row for row in controls if row["kind"] == "expert"]
    shown = [*rows, *experts]
    several = len({(row["env"], policy_text(row)) for row in rows}) > 1
    axes = [axis for axis in AXES if axis in axes_of(rows) or (axis == "loops" and several)]
    names = [_name(row, axes, several) for row in rows]
    names += [_name(row, axes_of(experts), True) for row in experts]
    rollouts = [
        _listed(rollout, row, number, names[number])
        for number, row in enumerate(shown)
        for rollout in row["rollouts"]
    ]
    clips: list[Clip] = []
    for number, row in enumerate(shown):
        known = {int(rollout["seed"]): rollout for rollout in row["rollouts"]}
        for video in row["videos"]:
            path = folder / video["file"]
            if path.is_file():
                rollout = known.get(video["seed"], {**video, "steps": 0})
                clips.append(_clip(path, _listed(rollout, row, number, names[number])))
    return RolloutList(
        names, sorted(rollouts, key=_place), sorted(clips, key=lambda clip: _place(clip.of))
    )


def _clip(path: Path, of: Listed) -> Clip:
    picture = last_picture(path)
    poster = _data_uri("image/jpeg", picture) if picture else ""
    return Clip(_data_uri("video/mp4", path.read_bytes()), poster, of)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _name(row: Row, axes: Sequence[str], several: bool) -> str:
    told = [policy_text(row)] if several else []
    return ", ".join(filter(None, [*told, condition_text(row, axes)])) or (
        _PLAIN if axes else policy_text(row)
    )


def _listed(rollout: Mapping[str, Any], row: Row, number: int, who: str) -> Listed:
    return Listed(
        seed=int(rollout["seed"]),
        outcome=outcome(rollout),
        who=who,
        condition=number,
        stage=str(rollout.get("stage", "")),
        steps=int(rollout["steps"]),
        seconds=rollout["steps"] * row["control"]["period_s"],
        error=str(rollout.get("error", "")),
    )


def _place(one: Listed) -> tuple[int, int, int]:
    return list(WORDS).index(one.outcome), one.seed, one.condition
