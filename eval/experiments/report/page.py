"""The report card as one self-contained page: light or dark, on a desk or a phone."""

from pathlib import Path

from markupsafe import Markup

from loopdit.eval import reporting
from loopdit.eval.experiments.analysis.finding import Finding
from loopdit.eval.experiments.analysis.verdict import (
    MISSING,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDERPOWERED,
    VERDICTS,
)
from loopdit.eval.experiments.figures.drawing import Panel
from loopdit.eval.experiments.report.card import Card
from loopdit.eval.experiments.report.words import (
    claimed_text,
    number_text,
    p_text,
    power_text,
    range_text,
    size_text,
    value_text,
)
from loopdit.pages import page_templates

_TEMPLATES = Path(__file__).resolve().parent / "templates"
# The style is that of the evaluations' reports.
_STYLE = Path(str(reporting.__file__)).resolve().parent / "templates"
_CLASSES = {
    REPRODUCED: "good",
    NOT_REPRODUCED: "bad",
    UNDERPOWERED: "open",
    NOT_RUN: "none",
    MISSING: "none",
}


def card_html(found: Card) -> str:
    """The page."""
    environment = page_templates([_TEMPLATES, _STYLE])
    environment.filters.update(
        value=_value,
        claimed=claimed_text,
        size=size_text,
        number=number_text,
        p=p_text,
        power=power_text,
        recomputed=range_text,
        inline=_inline,
        kind=_CLASSES.__getitem__,
    )
    return environment.get_template("experiments.html").render(
        card=found,
        counts=found.counts(),
        verdicts=VERDICTS,
        wrong=[check for check in found.checks if not check.holds],
        right=[check for check in found.checks if check.holds],
        scales=list(dict.fromkeys(row.verdict.scale for row in found.rows if row.verdict.scale)),
    )


def _value(found: Finding | None) -> str:
    """Which breaks before the interval and not within it."""
    return value_text(found).replace(", ", ",\N{NO-BREAK SPACE}")


def _inline(panel: Panel) -> Markup:
    return Markup(panel.inline())  # made here, from numbers and names of our own files
