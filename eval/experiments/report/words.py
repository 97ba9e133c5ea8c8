"""Numbers of the report as people read them."""

from loopdit.eval.experiments.analysis.finding import Finding
from loopdit.eval.experiments.analysis.verdict import Verdict
from loopdit.eval.experiments.paper.check import Check

NONE = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
_GREEK = {
    "alpha": "\N{GREEK SMALL LETTER ALPHA} ",
    "rho": "\N{GREEK SMALL LETTER RHO} ",
    "omega2": "\N{GREEK SMALL LETTER OMEGA}\N{SUPERSCRIPT TWO} ",
}


def short(value: float) -> str:
    """Three digits that count: 1.13, 0.0694, 208, 4.9e-10, 11,798,911."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size and size < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.3g}" if size < 100 else f"{value:.0f}"


def value_text(found: Finding | None) -> str:
    """ "1.13x [1.05, 1.22]", "alpha 0.011 [0.008, 0.014]", or a dash."""
    if found is None:
        return NONE
    text = _with_unit(found.value, found.unit)
    if found.low is None or found.high is None:
        return text
    return f"{text} [{short(found.low)}, {short(found.high)}]"


def claimed_text(found: Finding | None) -> str:
    """The paper's number for the same, or a dash."""
    if found is None or found.claimed is None:
        return NONE
    return _with_unit(found.claimed, found.unit)


def size_text(found: Finding | None) -> str:
    """ "ours is smaller" where our interval does not hold the paper's number, else nothing."""
    if found is None or found.size in ("", "as claimed"):
        return ""
    return f"ours is {found.size}"


def number_text(verdict: Verdict) -> str:
    """ "6", or a dash for one of ours."""
    return NONE if verdict.experiment.number is None else str(verdict.experiment.number)


def p_text(p: float | None) -> str:
    """ "0.012", "< 0.001", or a dash."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def power_text(found: Finding) -> str:
    """ "64 %, 8 seeds for 80 %"."""
    if found.power is None:
        return NONE
    needed = "" if found.seeds_needed is None else f", {found.seeds_needed} seeds for 80 %"
    return f"{100 * found.power:.0f} %{needed}"


def range_text(check: Check) -> str:
    """ "1.615 (1.481 to 1.759)": a recomputed number, and what rounding allows; "p 0.063"."""
    if check.low == check.high:
        return f"{check.what} {short(check.recomputed)}".strip()
    value, low, high = (f"{number:.4g}" for number in (check.recomputed, check.low, check.high))
    return f"{value} ({low} to {high})"


def _with_unit(value: float, unit: str) -> str:
    return f"{_GREEK.get(unit, '')}{short(value)}{TIMES if unit == 'x' else ''}"
