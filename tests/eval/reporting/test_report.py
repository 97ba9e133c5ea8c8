"""What the page must say, and what it must not need."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.eval.runs.test_results import rollouts

from loopdit.errors import ConfigError
from loopdit.eval.reporting.report import report_html, write_report
from loopdit.eval.reporting.table import milliseconds, percent
from loopdit.eval.runs.results import result_row, save_results

CONDITION: dict[str, Any] = {
    "env": "lift",
    "policy": "tcp://127.0.0.1:5555",
    "label": "",
    "kind": "served",
    "steps": 10,
    "model_id": "0123456789abcdef",
    "instruction": "pick up the <red> cube",
    "execute_horizon": 8,
    "videos": [],
    "command": "policy-eval policy=tcp://127.0.0.1:5555 'loops=[1,2]'",
}


def row(outcomes: str, loops: int | None, **changed: Any) -> dict[str, Any]:
    return result_row({**CONDITION, "loops": loops, **changed}, rollouts(outcomes), 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"not really a film")
    video = {"file": "videos/a.mp4", "seed": 900_000, "success": True}
    rows = [
        row("ssfffsfffff", loops=1),
        row("sssssssssss", loops=2, videos=[video]),
        row("fffffffffff", loops=2, kind="untrained", policy="untrained", model_id=None),
        row("ssssssssssf", loops=None, steps=None, kind="expert", policy="expert", model_id=None),
    ]
    save_results(tmp_path, rows, append=False)
    return tmp_path


class Page(HTMLParser):
    """The words of a page, and everything in it that points somewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words, self.targets, self.open_tags = list[str](), list[str](), list[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "polyline", "line", "circle", "br"):
            self.open_tags.append(tag)
        self.targets += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "poster")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """<line/> opens nothing."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_has_every_number_of_the_results(folder: Path):
    results = json.loads((folder / "eval.json").read_text())
    text = Page(report_html(folder)).text
    for found in results["results"]:
        low, high = (percent(bound) for bound in found["ci95"])
        control = found["control"]
        shown = [
            f"{found['successes']}/{found['episodes']}",
            f"{percent(found['success_rate'])} % [{low}, {high}]",
            milliseconds(found["latency_ms"]["p50"]),
            milliseconds(found["latency_ms"]["p99"]),
            f"{control['rate_hz']:.1f} Hz, {percent(control['on_time'])} % on time",
        ]
        assert re.search(r"\s".join(map(re.escape, shown)), text)
    for fact in ("0123456789abcdef", "900000 to 900010", results["machine"]["cpu"], "paused"):
        assert fact in text
    for name, version in results["versions"].items():
        assert f"{name} {version}" in text
    assert CONDITION["command"] in text


def test_the_page_says_the_result_first_in_plain_words(folder: Path):
    text = Page(report_html(folder)).text
    first = text[: text.index("11/11 starts")]
    assert "“pick up the <red> cube”: 11 of 11" in first
    assert "succeeded in 11 of 11 with 2 loops (K = 2): 100 %, 95 % interval 74 to 100 %" in first
    assert "on the same starts: untrained 0/11, expert 10/11" in first
    assert "K = 2 is better than K = 1: their 95 % intervals lie apart" in first


def test_overlapping_intervals_are_called_no_difference(tmp_path: Path):
    save_results(tmp_path, [row("ssf", loops=1), row("sss", loops=2)], append=False)
    assert "does not show that one depth succeeds more often" in Page(report_html(tmp_path)).text


def test_the_page_needs_nothing_from_anywhere_else(folder: Path):
    html = report_html(folder)
    page = Page(html)
    assert page.open_tags == []
    outside = [target for target in page.targets if not target.startswith("#")]
    assert len(outside) == 2  # the video, on top and among the rollouts
    assert all(target.startswith("data:video/mp4;base64,") for target in outside)
    # Addresses may stand in the text, as in the commands; nothing may load one.
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert html.count("<script") == html.count("<script>") == 1
    assert not re.search(r"fetch\(|XMLHttpRequest|import\b", html.partition("<script>")[2])
    assert "http://" not in unescape(html)
    assert "https://" not in unescape(html)


def test_text_from_outside_is_escaped(folder: Path):
    html = report_html(folder)
    assert "<red>" not in html
    assert "&lt;red&gt;" in html


def test_latency_of_the_back_ends_and_the_demos_commands_are_shown_where_they_lie_beside(
    folder: Path,
):
    bench = {"backend": "onnxruntime", "device": "cpu", "precision": "fp32", "loops": 2}
    bench |= {"steps": 10, "batch": 1, "p50_ms": 3.21, "p99_ms": 4.56, "max_abs_error": 2e-6}
    missing = {"backend": "tensorrt", "precision": "fp32", "reason": "no GPU"}
    (folder / "bench.json").write_text(json.dumps({"rows": [bench, missing]}))
    stages = [{"command": "policy-collect recipe=demo", "seconds": 61.4}]
    (folder / "demo.json").write_text(json.dumps({"seconds": 61, "stages": stages}))
    text = Page(report_html(folder)).text
    assert "onnxruntime cpu fp32 2 10 1 3.2 4.6 2.0e-06" in text
    assert "policy-collect recipe=demo # 61 s" in text


def test_controls_alone_make_a_page(tmp_path: Path):
    expert = row("ss", loops=None, steps=None, kind="expert", policy="expert", model_id=None)
    save_results(tmp_path, [expert], append=False)
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert "The expert succeeded in 2 of 2" in Page(path.read_text()).text


def test_no_results_no_page(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"eval\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_version_0_1_still_makes_a_page(folder: Path):
    results = json.loads((folder / "eval.json").read_text())
    kept = ("env", "policy", "label", "kind", "loops", "steps", "model_id", "instruction")
    kept += ("execute_horizon", "videos", "command", "episodes", "successes", "success_rate")
    kept += ("ci95", "latency_ms", "chunks", "control", "unstable", "seeds", "clock")
    for found in results["results"]:
        rollouts_then = [
            {name: one[name] for name in ("seed", "success", "steps", "unstable")}
            for one in found["rollouts"]
        ]
        for name in set(found) - set(kept):
            del found[name]
        found["rollouts"] = rollouts_then
    for name in ("controls", "comparisons", "simulator", "model_digest", "restarts", "plans"):
        del results[name]
    (folder / "eval.json").write_text(json.dumps(results))
    text = Page(report_html(folder)).text
    assert "11/11 100 % [74, 100]" in text
    assert "900000 failed" in text
    assert "time to success, s" not in text  # nobody measured it


def test_only_what_varies_has_a_column_and_the_rest_is_said_once(tmp_path: Path):
    rows = [row("ssf", loops=2, delay=delay, execution="naive") for delay in ("0", "2")]
    save_results(tmp_path, rows, append=False)
    html = report_html(tmp_path)
    head = re.findall(r"<thead>(.*?)</thead>", html, re.DOTALL)[0]
    assert re.findall(r"<th>(.*?)</th>", head)[:3] == ["delay", "success", "rate [95 % interval]"]
    text = Page(html).text
    assert "In every row: depth K: 2; denoising steps: 10; how chunks are executed: naive" in text
    assert "2 (200 ms) 2/3" in text


def test_what_had_no_verdict_is_counted_apart(tmp_path: Path):
    save_results(tmp_path, [row("ssuuuee", loops=1)], append=False)
    text = Page(report_html(tmp_path)).text
    assert "broken physics (3) and exceptions (2 of 7 rollouts) are no success" in text


def test_failures_stand_before_successes_and_say_how_far_they_came(tmp_path: Path):
    save_results(tmp_path, [row("sfs", loops=1)], append=False)
    text = Page(report_html(tmp_path)).text
    assert text.index("900001 failed served policy grasped 2 0.2") < text.index("900000 success")


def test_an_errors_text_is_shown_and_escaped(tmp_path: Path):
    about = {**CONDITION, "loops": 1}
    errors = {900_001: "ValueError: <script>alert(1)</script>"}
    save_results(tmp_path, [result_row(about, rollouts("se"), 0.1, errors)], append=False)
    html = report_html(tmp_path)
    assert html.count("<script") == 1
    assert "ValueError: <script>alert(1)</script>" in Page(html).text


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0"), (0.001, "1"), (0.5, "50"), (0.999, "99"), (1, "100")]
)
def test_only_none_and_all_round_to_0_and_100(share: float, shown: str):
    assert percent(share) == shown
