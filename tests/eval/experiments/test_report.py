import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.browser import SCREENS, Browser, needs_browser, open_browser
from tests.eval.experiments.stored import store

from loopdit.eval.experiments.experiment import experiments
from loopdit.eval.experiments.report.command import main
from loopdit.eval.experiments.report.words import short


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of three experiments, and their report."""
    folder = tmp_path_factory.mktemp("experiments")
    for name in ("6", "11", "25"):
        store(folder, name)
    main([f"out={folder}"])
    return folder


@pytest.fixture(scope="module")
def html(out: Path) -> str:
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def as_json(out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    main([f"out={out}", "json=true", *options])
    return json.loads(capsys.readouterr().out)


def by_number(found: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {one["number"]: one for one in found["experiments"] if one["number"] is not None}


def test_json_lists_every_experiment_with_figure_interval_and_verdict(
    out: Path, capsys: pytest.CaptureFixture[str]
):
    found = by_number(as_json(out, capsys))
    assert sorted(found) == list(range(1, 27))
    six = found[6]
    assert six["metric"] == "total_loss"
    assert six["value"] == pytest.approx(0.234 / 0.135, rel=0.02)
    assert six["interval"][0] < six["value"] < six["interval"][1]
    assert (six["n"], six["scale"], six["size"]) == (5, "cpu", "as claimed")
    verdicts = {number: one["verdict"] for number, one in found.items()}
    assert (verdicts[6], verdicts[11]) == ("reproduced", "not reproduced")
    assert (verdicts[1], verdicts[23]) == ("not run at this scale", "missing in the paper")
    assert found[1]["value"] is None
    cells = {cell["factors"]["system"]: cell for cell in six["cells"]}
    assert cells["3b4l"]["metrics"]["total_loss"] == pytest.approx(0.135, rel=0.02)


def test_json_holds_the_papers_recomputed_tables(out: Path, capsys: pytest.CaptureFixture[str]):
    paper = as_json(out, capsys)["paper"]
    assert paper["exp26"]["anova"]["loops"]["F"] == pytest.approx(1.615, abs=5e-4)
    assert paper["exp26"]["power"]["two_sided"] == pytest.approx(0.103, abs=5e-4)
    assert any(not check["holds"] for check in paper["checks"])


def test_a_flat_line_is_no_power_law(out: Path, capsys: pytest.CaptureFixture[str]):
    found = by_number(as_json(out, capsys))[25]
    assert found["unit"] == "alpha"
    assert found["value"] == pytest.approx(0, abs=0.006)
    assert found["verdict"] == "not reproduced"


def test_a_smoke_run_has_values_and_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store(tmp_path, "6", scale="smoke")
    found = by_number(as_json(tmp_path, capsys))[6]
    assert found["verdict"] == "not run at this scale"
    assert found["value"] == pytest.approx(1.73, rel=0.1)
    assert found["interval"] is None
    assert found["n"] == 1


def test_the_largest_scale_is_reported_unless_another_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store(tmp_path, "6", scale="smoke")
    store(tmp_path, "6", scale="cpu")
    assert by_number(as_json(tmp_path, capsys))[6]["scale"] == "cpu"
    assert by_number(as_json(tmp_path, capsys, "scale=smoke"))[6]["scale"] == "smoke"


def test_a_folder_without_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for folder, said in ((tmp_path, "holds no results"), (tmp_path / "none", "is no folder")):
        with pytest.raises(SystemExit):
            main([f"out={folder}"])
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class Links(HTMLParser):
    """Addresses that a page names, and ids that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "xlink:href"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def test_the_page_needs_no_other_file_and_its_links_lead_somewhere(html: str, out: Path):
    found = Links(html)
    assert len(found.ids) == len(set(found.ids))
    outside = [address for address in found.addresses if not address.startswith("#")]
    assert outside
    for address in outside:
        assert address.endswith(".yaml")
        assert (out / address).is_file(), address
    inside = {address[1:] for address in found.addresses if address.startswith("#")}
    assert inside <= set(found.ids)
    assert "<script" not in html
    assert not re.search(r"url\((?!#)", html)


def test_every_experiment_is_in_the_page_and_in_the_markdown(html: str, out: Path):
    markdown = (out / "report.md").read_text()
    for experiment in experiments().values():
        assert f'id="{experiment.name}"' in html
        assert experiment.title in markdown
    assert "a &lt;fast&gt; one" in html


def test_the_markdowns_plots_and_files_are_there(out: Path):
    markdown = (out / "report.md").read_text()
    named = re.findall(r"\]\(([^)#]+)\)", markdown)
    plots = {name for name in named if name.endswith(".svg")}
    assert {f"figures/{path.name}" for path in (out / "figures").iterdir()} == plots
    assert all((out / name).is_file() for name in named)
    assert len([name for name in plots if "figure-" in name]) == 15


def test_a_figure_says_at_which_scale_ours_were_run(html: str):
    captions = re.findall(r"<h3>Figure (\d)\..*?</h3>\s*<p class=\"soft\">(.*?)</p>", html)
    told = {number: caption.rpartition(". ")[2] for number, caption in captions}
    assert told["1"] == told["5"] == "Ours at scale cpu."
    assert told["4"] == told["6"] == "None of ours were run."


def test_a_figure_without_data_of_ours_says_so_and_still_shows_the_papers(out: Path):
    assert "ours: not run" in (out / "figures/figure-4.svg").read_text()
    drawn = (out / "figures/figure-1a.svg").read_text()
    assert "ours: not run" not in drawn
    for name in ("figure-4", "figure-1a"):
        assert ">paper</text>" in (out / f"figures/{name}.svg").read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.7312, "1.73"), (0.0694, "0.0694"), (4.9e-10, "4.9e-10"), (208, "208"), (0, "0"),
     (11_798_911, "11,798,911"), (-2.5e-5, "-2.5e-5"), (1000.4, "1,000")],
)  # fmt: skip
def test_numbers_have_three_digits_that_count(value: float, text: str):
    assert short(value) == text


@pytest.mark.system
@needs_browser
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_phones_and_desktops_and_can_be_read(
    out: Path, html: str, browser: Browser, screen: str, scheme: str
):
    browser.open(out / "report.html", screen, scheme)
    browser.script("document.querySelectorAll('details').forEach(d => d.open = true)")
    width = SCREENS[screen][0]
    assert browser.script("return document.documentElement.scrollWidth") <= width
    assert browser.errors() == []
    assert browser.contrast() >= 4.5
    sizes = browser.script(
        "return [...document.querySelectorAll('.plot svg')].map("
        "e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height])"
    )
    assert len(sizes) == html.count("<svg")
    assert all(across > 280 and down > 150 for across, down in sizes)
    outside = browser.script(
        "return [...document.querySelectorAll('svg text')].filter(t => {"
        "const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();"
        "return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1"
        "|| a.bottom > b.bottom + 1 }).map(t => t.textContent)"
    )
    assert outside == []


def test_a_result_that_is_no_number_is_refused_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store(tmp_path, "6")
    damaged = next((tmp_path / "cpu" / "06_depth_vs_recurrence").glob("*.json"))
    fields = json.loads(damaged.read_text("utf-8"))
    fields["metrics"]["total_loss"] = float("nan")
    damaged.write_text(json.dumps(fields), "utf-8")
    with pytest.raises(SystemExit):
        main([f"out={tmp_path}", "json=true"])
    assert f"{damaged} cannot be read as a result: NaN is no number" in capsys.readouterr().err
