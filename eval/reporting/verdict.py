"""What an evaluation found, in a few plain sentences, and no more than it shows.

Differences are those of the paired tests in eval.json, corrected for their number. A file without
them is judged by intervals that lie apart. What is not shown is said as plainly as what is.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from loopdit.eval.reporting.report_rows import Group, axes_of, condition_text
from loopdit.eval.reporting.table import (
    control_text,
    milliseconds,
    percent,
    policy_text,
    success_text,
)
from loopdit.eval.runs.results import Row
from loopdit.eval.seeds import FIRST_TEST_SEED
from loopdit.eval.statistics.comparison import ALPHA
from loopdit.eval.statistics.planning import (
    detectable_difference,
    found_by_e_process,
    found_by_mcnemar,
)

Comparison = Mapping[str, Any]

_POWER = 0.8
_NAMED = 4  # conditions that a sentence has room for


def summary(
    subject: Group, controls: Sequence[Row], comparisons: Sequence[Comparison] = ()
) -> list[str]:
    """What was tried, how it went, what the controls did, what that shows and what not."""
    best = subject.best
    sentences = [_tried(subject), *_without_verdict(subject.rows)]
    if best["loops"] and best["latency_ms"]["p50"] is not None:
        sentences.append(
            f"A chunk of actions then took {milliseconds(best['latency_ms']['p50'])} ms to come "
            f"(median; {milliseconds(best['latency_ms']['p99'])} ms at the 99th percentile), and "
            f"the control rate held was {control_text(best)}."
        )
    if told := _controls(best, controls):
        sentences.append(f"For comparison, on the same starts: {', '.join(told)}.")
    own = [one for one in comparisons if one["plan"] == best["plan"]] if best["plan"] else []
    if own:
        sentences += _differences(own)
    elif len(subject.rows) > 1:
        sentences.append(_by_intervals(subject))
    if power := power_sentence(own[0] if own else None, best):
        sentences.append(power)
    return sentences


def power_sentence(compared: Comparison | None, row: Row) -> str:
    """How large a difference would have had to be to be found; of one row alone, how large it has
    to be for a second condition on the same starts."""
    if compared is None:
        pairs, rate, number, sequential = row["episodes"], row["success_rate"], 1, False
    else:
        pairs, rate = compared["pairs"], compared["rate_a"]
        number, sequential = compared["comparisons"], compared["sequential"]
    test = found_by_e_process if sequential else found_by_mcnemar
    least = detectable_difference(pairs, rate, 0.0, ALPHA / number, test, _POWER)
    starts = f"{pairs} starts"
    if least is None:
        return (
            f"{starts.capitalize()} are too few to tell conditions apart, however different they "
            f"are."
        )
    name = compared and _short([compared])[compared["a"]]
    points = f"about {100 * least:.0f} points of success"
    if compared is None:
        return (
            f"On {starts}, another condition would have to differ by {points} to be told apart "
            f"8 times in 10."
        )
    return (
        f"On {starts}, a difference of {points} from {name} would have been found 8 times "
        f"in 10; smaller ones may well be there."
    )


def _tried(subject: Group) -> str:
    best = subject.best
    low, high = (percent(bound) for bound in best["ci95"])
    varied = [axis for axis in axes_of(subject.rows) if axis != "loops"]
    depth = f" with {_count(best['loops'], 'loop')} (K = {best['loops']})" if best["loops"] else ""
    told = condition_text(best, varied)
    under = f" and {told}" if told and depth else f" under {told}" if told else ""
    tried = f"{best['episodes']} starting positions"
    tried += " that no demonstration used" if best["seeds"][0] >= FIRST_TEST_SEED else ""
    chosen = ""
    if len(subject.rows) > 1:
        chosen = (
            f" That is the best of {len(subject.rows)} conditions, chosen on the seeds it is "
            f"reported on, which flatters it a little."
        )
    return (
        f"A simulated robot was told “{best['instruction']}” in {tried}. "
        f"The {policy_text(best)} succeeded in {best['successes']} of {best['episodes']}{depth}"
        f"{under}: {percent(best['success_rate'])} %, 95 % interval {low} to {high} %.{chosen}"
    )


def _without_verdict(rows: Sequence[Row]) -> list[str]:
    """Rollouts that say nothing of the policy, if any: their number would pass for failures."""
    errors, unstable = (sum(row[name] for row in rows) for name in ("errors", "unstable"))
    told = [
        f"{count} of {sum(row['episodes'] for row in rows)} rollouts {what}"
        for count, what in ((errors, "raised an error"), (unstable, "ended in broken physics"))
        if count
    ]
    if not told:
        return []
    return [f"{' and '.join(told)}: these count as no success."]


def _controls(best: Row, controls: Sequence[Row]) -> list[str]:
    """Each control's successes, rather undisturbed than not, and once."""
    found: dict[str, Row] = {}
    for row in controls:
        if row["seeds"] == best["seeds"] and row["env"] == best["env"] and row is not best:
            found.setdefault(policy_text(row), row)
    return [f"{name} {success_text(row)}" for name, row in found.items()]


def _differences(comparisons: Sequence[Comparison]) -> list[str]:
    """Two sentences at most: what is shown, and what is not."""
    first, number = _short(comparisons)[comparisons[0]["a"]], len(comparisons)
    named = partial(_names, _short(comparisons))
    shown = [one for one in comparisons if one["shown"]]
    not_shown = [one for one in comparisons if not one["shown"]]
    test = f"in a paired test corrected for {_count(number, 'comparison')}"
    found: list[str] = []
    for word, side in (("less", _worse(shown)), ("more", _better(shown))):
        if side:
            found.append(
                f"Shown, {test}: {named(side)} "
                f"{'succeeds' if len(side) == 1 else 'succeed'} {word} often than {first}."
            )
    if not_shown:
        found.append(
            f"Not shown: a difference between {first} and {named(not_shown)}. That is no proof "
            f"that they are equal."
        )
    return found


def _worse(shown: Sequence[Comparison]) -> list[Comparison]:
    return [one for one in shown if one["only_b"] < one["only_a"]]


def _better(shown: Sequence[Comparison]) -> list[Comparison]:
    return [one for one in shown if one["only_b"] > one["only_a"]]


def _short(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Names without what they all begin with, and without what is not disturbed."""
    names = {str(one[side]) for one in comparisons for side in ("a", "b")}
    heads = {name.partition(", ")[0] for name in names}
    policies = {head.rpartition(" K=")[0] for head in heads}
    found: dict[str, str] = {}
    for name in names:
        head, *rest = name.split(", ")
        if len(heads) == 1:
            head = "" if rest else head
        elif len(policies) == 1:
            head = head.removeprefix(f"{next(iter(policies))} ")
        told = [head, *(part for part in rest if not part.endswith("=none"))]
        found[name] = ", ".join(filter(None, told)) or "the undisturbed one"
    return found


def _names(short: Mapping[str, str], comparisons: Sequence[Comparison]) -> str:
    names = [short[one["b"]] for one in comparisons]
    left = len(names) - _NAMED
    if left > 1:
        return f"{'; '.join(names[:_NAMED])}; and {left} more"
    return names[0] if len(names) == 1 else f"{'; '.join(names[:-1])} and {names[-1]}"


def _by_intervals(subject: Group) -> str:
    """What this run says of depth, or of whatever else it varied."""
    best = subject.best
    varied = axes_of(subject.rows)
    worse = [row for row in subject.rows if row["ci95"][1] < best["ci95"][0]]
    if varied == ["loops"] or not varied:
        if worse:
            depths = ", ".join(str(row["loops"]) for row in worse)
            return (
                f"K = {best['loops']} is better than K = {depths}: their 95 % intervals lie apart."
            )
        return (
            "The intervals of all depths overlap: this run does not show that one depth "
            "succeeds more often than another."
        )
    if worse:
        names = "; ".join(condition_text(row, varied) for row in worse[:_NAMED])
        return (
            f"{condition_text(best, varied)} is better than {names}: their 95 % intervals lie "
            f"apart."
        )
    return (
        "The intervals of all conditions overlap: this run does not show that one succeeds more "
        "often than another."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
