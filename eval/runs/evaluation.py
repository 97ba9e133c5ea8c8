"""One evaluation from its plan to its rows: hands out jobs, keeps what comes back, adds it up.

Episodes may end in any order and on any worker; rows are made from them in the order of the plan,
so they do not depend on it. Each is in the journal before it counts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.delays import parse_delay
from loopdit.eval.rollouts.rollout import Rollout
from loopdit.eval.rollouts.rollout_record import Episode, to_record
from loopdit.eval.runs.journal import JournalWriter
from loopdit.eval.runs.plan import Job, Plan
from loopdit.eval.runs.results import Row, result_row
from loopdit.eval.runs.sequential_run import SequentialStop
from loopdit.eval.runs.worker_pool import ATTEMPTS, Finished, Pool
from loopdit.eval.statistics.comparison import Comparison, compare_rows, corrected
from loopdit.eval.statistics.matching import row_text, varying
from loopdit.progress import Progress

_NOTED = 4  # conditions whose tally the progress line has room for


class Evaluation:
    """`plan`, and of its episodes those that are `done` already.

    common: what all rows have in common (env, policy, label and so on), `stages` among it.
    period_s: control period at each rate. journal: None where nobody wants to go on later.
    """

    def __init__(
        self,
        plan: Plan,
        common: Mapping[str, Any],
        period_s: Mapping[float, float],
        journal: JournalWriter | None,
        done: Sequence[Episode] = (),
    ) -> None:
        self._plan = plan
        self._common = common
        self._period_s = period_s
        self._journal = journal
        self._clocks = {c.delay: parse_delay(c.delay).clock for c in plan.conditions}
        self._stop: SequentialStop | None = None
        if plan.sequential:
            self._stop = SequentialStop(plan.conditions, plan.first_seed, plan.episodes)
        self._episodes: dict[Job, Episode] = {}
        self._videos: dict[Job, str] = {}
        self._tried: Counter[Condition] = Counter()
        self._successes: Counter[Condition] = Counter()
        for episode in done:
            self._keep(episode)
        self._already = len(self._episodes)

    @property
    def stop(self) -> SequentialStop | None:
        """What decided how many episodes there are; None where the plan did."""
        return self._stop

    @property
    def restarts(self) -> int:
        """Workers, and processes of environments, that died and were replaced."""
        return sum(episode.restarts for episode in self._episodes.values())

    def run(self, pool: Pool[Job, Episode], label: str) -> None:
        """Do what is missing. Raises what a job raises; what ended before is kept."""
        with Progress(label, self._plan.total, already=self._already) as progress:
            for finished in pool.run(self._missing()):
                episode = self._episode(finished)
                if self._journal is not None:
                    self._journal.append(to_record(episode, self._plan.digest))
                self._keep(episode)
                progress.update(len(self._episodes), self._note())

    def rows(self) -> list[Row]:
        """One for each condition that has finished a rollout."""
        made = [self._row("", condition) for condition in self._plan.conditions]
        return [row for row in made if row is not None]

    def controls(self) -> list[Row]:
        """One for each control that has finished a rollout."""
        made = [self._row(name, condition) for name, condition in self._plan.controls]
        return [row for row in made if row is not None]

    def comparisons(self) -> list[Row]:
        """Each condition with the first one, as one family."""
        rows = self.rows()
        keys = varying(rows)
        found = [c for row in rows[1:] for c in _compared(rows[0], row, keys)]
        return [{**each.to_dict(), "plan": self._plan.digest} for each in corrected(found)]

    def episodes(self) -> dict[Condition, list[Episode]]:
        """The policy's, by condition, in the order of seeds."""
        found: dict[Condition, list[Episode]] = {c: [] for c in self._plan.conditions}
        for job in self._plan.jobs():
            if not job.subject and job in self._episodes and self._counts(job.seed):
                found[job.condition].append(self._episodes[job])
        return found

    def add_video(self, job: Job, file: str) -> None:
        """A video of `job` was made; `file` is its name in the folder of the results."""
        self._videos[job] = file

    def first_error(self) -> str:
        """What an episode raised, for people; "" when none did."""
        raised = (self._episodes[job] for job in self._plan.jobs() if job in self._episodes)
        return next((f"seed {e.job.seed}: {e.error}" for e in raised if e.error), "")

    def _missing(self) -> Iterator[Job]:
        """Jobs that are not done; asked for one at a time, so that a stop ends them."""
        for job in self._plan.jobs():
            if not self._counts(job.seed):
                return
            if job not in self._episodes:
                yield job

    def _counts(self, seed: int) -> bool:
        stop = self._stop.stop_seed if self._stop else None
        return stop is None or seed <= stop

    def _keep(self, episode: Episode) -> None:
        job = episode.job
        self._episodes[job] = episode
        if not job.subject:
            self._tried[job.condition] += 1
            self._successes[job.condition] += episode.rollout.success
        if self._stop is not None and not job.subject:
            self._stop.add(job.condition, job.seed, episode.rollout.outcome)

    def _episode(self, finished: Finished[Job, Episode]) -> Episode:
        if finished.result is not None:
            restarts = finished.result.restarts + finished.restarts
            return replace(finished.result, restarts=restarts)
        job = finished.job
        lost = Rollout.errored(job.seed, self._period_s[job.condition.rate_hz])
        error = f"its worker process died, {ATTEMPTS} times in a row"
        return Episode(job, lost, error=error, restarts=finished.restarts)

    def _row(self, subject: str, condition: Condition) -> Row | None:
        found = [
            episode
            for job, episode in self._episodes.items()
            if job.subject == subject and job.condition == condition and self._counts(job.seed)
        ]
        if not found:
            return None
        found.sort(key=lambda episode: episode.job.seed)
        about = {
            **self._common,
            **condition.to_dict(),
            "loops": condition.loops or None,
            "steps": condition.steps or None,
            "clock": self._clocks.get(condition.delay, "paused"),
            "restarts": sum(episode.restarts for episode in found),
            "sequential": self._stop is not None,
            "plan": self._plan.digest,
            "videos": [
                {"file": self._videos[e.job], "seed": e.job.seed, "success": e.rollout.success}
                for e in found
                if e.job in self._videos
            ],
        }
        if subject:
            about |= {"policy": subject, "kind": subject, "label": "", "model_id": None}
        errors = {episode.job.seed: episode.error for episode in found if episode.error}
        period_s = self._period_s[condition.rate_hz]
        return result_row(about, [episode.rollout for episode in found], period_s, errors)

    def _note(self) -> str:
        """Successes so far, and what else happened."""
        several = len(self._plan.conditions) > 1
        tallies = [
            f"{condition.text + ': ' if several else ''}{self._successes[condition]}/{tried}"
            for condition in self._plan.conditions[:_NOTED]
            if (tried := self._tried[condition])
        ]
        left_out = len(self._plan.conditions) - _NOTED
        more = f"  and {left_out} more" if left_out > 0 else ""
        decided = (
            f"  {self._stop.decided} of {self._stop.comparisons} decided" if self._stop else ""
        )
        restarts = f"  {self.restarts} restarts" if self.restarts else ""
        return f"success {'  '.join(tallies)}{more}{decided}{restarts}"


def _compared(a: Row, b: Row, keys: Sequence[str]) -> list[Comparison]:
    """Empty where no seed has a verdict of both."""
    try:
        return [compare_rows(a, b, (row_text(a, keys), row_text(b, keys)))]
    except ConfigError:
        return []
