"""The report's files: report.html, self-contained; report.md with its plots in figures/."""

from pathlib import Path

from loopdit.eval.experiments.report.card import Card
from loopdit.eval.experiments.report.markdown import FIGURES, card_markdown
from loopdit.eval.experiments.report.page import card_html
from loopdit.whole_file import whole_file

PAGE, MARKDOWN = "report.html", "report.md"


def write_report(out: Path, found: Card) -> Path:
    """Write all of them into `out`, and return the page's path. Raises OSError."""
    folder = out / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    panels = [panel for figure in found.figures for panel in figure.panels]
    panels += [row.plot for row in found.rows if row.plot is not None]
    for panel in panels:
        _write(folder / f"{panel.name}.svg", panel.file())
    _write(out / MARKDOWN, card_markdown(found))
    _write(out / PAGE, card_html(found))
    return out / PAGE


def _write(path: Path, text: str) -> None:
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
