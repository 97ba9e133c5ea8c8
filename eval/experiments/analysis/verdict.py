"""Verdicts: what the answers to an experiment's questions say of its claim.

The claim holds when every question's does, so that its p value is the largest of theirs; it is
refuted when one is, so that the smallest counts, times their number. Both are corrected over a
family by Holm: the paper's experiments that were tested are one, ours are another. Then

    reproduced                 its corrected p_supports is at most 5 %
    not reproduced             not that, and its corrected p_refutes is at most 5 %
    underpowered               neither: what was measured leaves room for the claim and against it,
                               its test could not be made of it, or it compares models that are not
                               shown to beat the constant predictor, or chance (`learning`)
    not run at this scale      no results, not all cells, or a smoke run, which shows values alone

and "missing in the paper" is number 23.

So "underpowered" does not mean that a larger run would find the claim, nor does "reproduced" mean
its size: `size` says how the number compares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from loopdit.eval.experiments.analysis import comparisons, trends
from loopdit.eval.experiments.analysis.finding import Finding
from loopdit.eval.experiments.analysis.learning import unlearned
from loopdit.eval.experiments.analysis.question import Question, questions_of
from loopdit.eval.experiments.analysis.seed_table import NoRatio, NotThere, SeedTable
from loopdit.eval.experiments.experiment import Experiment
from loopdit.eval.experiments.store import CellResult
from loopdit.eval.statistics.multiplicity import holm

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDERPOWERED = "underpowered"
NOT_RUN = "not run at this scale"
MISSING = "missing in the paper"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, UNDERPOWERED, NOT_RUN, MISSING)
ALPHA = 0.05
SMOKE = "smoke"

_ANSWERS: Mapping[str, Callable[[SeedTable, Question], Finding]] = {
    "ratio": comparisons.ratio,
    "paired": comparisons.paired,
    "welch": comparisons.of_two_groups,
    "equivalence": comparisons.equivalence,
    "no_worse": comparisons.no_worse,
    "threshold": comparisons.threshold,
    "best": comparisons.best,
    "spread": comparisons.spread,
    "spearman": trends.spearman,
    "power_law": trends.power_law,
    "anova2": trends.anova2,
}


@dataclass(frozen=True)
class Verdict:
    """Of one experiment at one scale ("" where nothing was run).

    p values are None where it rests on no test; the adjusted ones are corrected over its family,
    of `family` experiments.
    """

    experiment: Experiment
    scale: str
    verdict: str
    why: str
    findings: tuple[Finding, ...] = ()
    p_supports: float | None = None
    p_refutes: float | None = None
    p_supports_adjusted: float | None = None
    p_refutes_adjusted: float | None = None
    family: int = 0

    @property
    def headline(self) -> Finding | None:
        """The first answer, which the report shows."""
        return self.findings[0] if self.findings else None

    @property
    def deciding(self) -> int:
        """How many answers the verdict rests on."""
        return sum(not finding.beside for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """One of `experiments` in `report json=true`."""
        first, experiment = self.headline, self.experiment
        interval = None if first is None or first.low is None else [first.low, first.high]
        return {
            "number": experiment.number,
            "name": experiment.name,
            "title": experiment.title,
            "claim": experiment.claim,
            "metric": experiment.metric,
            "scale": self.scale,
            "value": None if first is None else first.value,
            "unit": "" if first is None else first.unit,
            "interval": interval,
            "n": 0 if first is None else first.n,
            "claimed": None if first is None else first.claimed,
            "size": "" if first is None else first.size,
            "verdict": self.verdict,
            "why": self.why,
            "p_supports": self.p_supports,
            "p_refutes": self.p_refutes,
            "p_supports_adjusted": self.p_supports_adjusted,
            "p_refutes_adjusted": self.p_refutes_adjusted,
            "family": self.family,
            "findings": [asdict(finding) for finding in self.findings],
        }


def verdicts(found: Sequence[tuple[Experiment, str, Sequence[CellResult]]]) -> list[Verdict]:
    """Of (experiment, scale, its results) each, in order."""
    single = [_answered(experiment, scale, results) for experiment, scale, results in found]
    made = list(single)
    for is_papers in (True, False):
        family = [
            place
            for place, one in enumerate(single)
            if one.p_supports is not None and (one.experiment.number is not None) == is_papers
        ]
        supports = holm([single[place].p_supports or 0.0 for place in family])
        refutes = holm([single[place].p_refutes or 0.0 for place in family])
        for place, support, refute in zip(family, supports, refutes, strict=True):
            made[place] = _decided(single[place], support, refute, len(family))
    return made


def _answered(experiment: Experiment, scale: str, results: Sequence[CellResult]) -> Verdict:
    """Findings and p values, not yet corrected."""
    if experiment.missing:
        return Verdict(experiment, scale, MISSING, "The paper counts it and does not have it.")
    if not results:
        return Verdict(experiment, scale, NOT_RUN, "There are no results.")
    table = SeedTable.of(experiment, results)
    questions = questions_of(experiment)
    findings: list[Finding] = []
    absent: list[str] = []
    untestable: list[str] = []
    for question in questions:
        try:
            findings.append(_ANSWERS[question.kind](table, question))
        except NotThere as error:
            if not question.beside:
                why = untestable if isinstance(error, NoRatio) else absent
                why.append(f"{question.id}: {error}")
    one = Verdict(experiment, scale, NOT_RUN, "", tuple(findings) or _metric_alone(table))
    if scale == SMOKE:
        return replace(one, why="A smoke run tells that it runs, and no more.")
    if absent:
        return replace(one, why=f"Not all that its test needs was run ({'; '.join(absent)}).")
    best = unlearned(table)
    if best is not None:
        shown = (
            "No test: the seeds do not show that any arm beats chance"
            if best.seems_learned
            else "Nothing was learned, so noise is compared: no arm beats chance"
        )
        return replace(one, verdict=UNDERPOWERED, why=f"{shown} ({best.text()}).")
    if untestable:
        return replace(one, verdict=UNDERPOWERED, why=f"No test: {'; '.join(untestable)}.")
    deciding = [finding for finding in findings if not finding.beside]
    if not deciding:
        return replace(one, why="No test is declared for it.")
    untested = next((f for f in deciding if f.p_supports is None or f.p_refutes is None), None)
    if untested is not None:
        return replace(one, verdict=UNDERPOWERED, why=f"No test: {untested.note}.")
    supports = max(finding.p_supports or 0.0 for finding in deciding)
    refutes = min(1.0, len(deciding) * min(finding.p_refutes or 0.0 for finding in deciding))
    return replace(one, p_supports=supports, p_refutes=refutes)


def _metric_alone(table: SeedTable) -> tuple[Finding, ...]:
    """What is shown where no question has an answer."""
    metric = table.experiment.metric
    results = [
        result
        for seeds in table.results.values()
        for result in seeds.values()
        if metric in result.metrics
    ]
    if not results:
        return ()
    mean = fmean(result.metrics[metric] for result in results)
    n = len({result.seed for result in results})
    says = f"{metric}, mean of all cells"
    return (Finding("metric", says, "none", "", mean, n, beside=True),)


def _decided(one: Verdict, supports: float, refutes: float, family: int) -> Verdict:
    if supports <= ALPHA:
        verdict = REPRODUCED
    elif refutes <= ALPHA:
        verdict = NOT_REPRODUCED
    else:
        verdict = UNDERPOWERED
    made = replace(
        one,
        verdict=verdict,
        p_supports_adjusted=supports,
        p_refutes_adjusted=refutes,
        family=family,
    )
    return replace(made, why=_why(made))


def _why(one: Verdict) -> str:
    deciding = [finding for finding in one.findings if not finding.beside]
    corrected = f"corrected for {one.family}" if one.family > 1 else "of one test"
    if one.verdict == REPRODUCED:
        sizes = [f"{finding.id} is {finding.size} than claimed" for finding in deciding
                 if finding.size in ("smaller", "larger")]  # fmt: skip
        but = f"; {', '.join(sizes)}" if sizes else ""
        return f"Shown: {_p(one.p_supports_adjusted)}, {corrected}{but}."
    if one.verdict == NOT_REPRODUCED:
        least = min(deciding, key=lambda finding: finding.p_refutes or 0.0)
        return f"Shown not to be so, by {least.id}: {_p(one.p_refutes_adjusted)}, {corrected}."
    weakest = max(deciding, key=lambda finding: finding.p_supports or 0.0)
    text = (
        f"Neither shown ({_p(one.p_supports_adjusted)}, {corrected}) nor refuted "
        f"({_p(one.p_refutes_adjusted)}), by {weakest.id}"
    )
    if weakest.power is not None:
        text += f"; power {100 * weakest.power:.0f} %"
    if weakest.seeds_needed is not None and weakest.seeds_needed > weakest.n:
        text += f", 80 % takes {weakest.seeds_needed} seeds"
    return f"{text}."


def _p(p: float | None) -> str:
    assert p is not None
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
