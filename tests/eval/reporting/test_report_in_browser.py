"""The page of a real evaluation, opened in Chromium as a phone and as a desktop show it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser import SCREENS, Browser, needs_browser, open_browser

from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.evaluate import run
from loopdit.eval.reporting.report import FILE

pytestmark = [pytest.mark.system, needs_browser]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real rollouts that succeed and, blind, fail; filmed."""
    out = tmp_path_factory.mktemp("evaluated")
    run(
        EvalConfig(
            loops=[1, 2],
            delay=["0", "4"],
            fault=["none", "black"],
            episodes=3,
            videos=2,
            out=str(out),
        )
    )
    return out / FILE


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_never_scrolls_sideways_and_the_console_stays_quiet(
    page: Path, browser: Browser, screen: str
):
    browser.open(page, screen)
    browser.script("document.querySelectorAll('details').forEach(d => d.open = true)")
    width = SCREENS[screen][0]
    assert browser.script("return innerWidth") == width
    assert browser.script("return document.documentElement.scrollWidth") <= width
    browser.script("scrollTo(0, document.body.scrollHeight)")
    assert browser.errors() == []


@pytest.mark.parametrize("screen", SCREENS)
def test_every_plot_is_there_to_be_seen(page: Path, browser: Browser, screen: str):
    browser.open(page, screen)
    sizes = browser.script(
        "return [...document.querySelectorAll('.plot svg, .plot .forest')].map("
        "e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height])"
    )
    # Latency, delay, the frontier and the fault.
    assert len(sizes) == 4
    assert all(width > 280 and height > 50 for width, height in sizes)
    # Letters do not shrink with the plot until nobody can read them.
    assert (
        browser.script(
            "return Math.min(...[...document.querySelectorAll('svg text')].map("
            "t => t.getBoundingClientRect().height))"
        )
        >= 10
    )
    outside = browser.script(
        "return [...document.querySelectorAll('svg text')].filter(t => {"
        "const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();"
        "return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1"
        "|| a.bottom > b.bottom + 1 }).map(t => t.textContent)"
    )
    assert outside == []


def test_every_video_plays(page: Path, browser: Browser):
    browser.open(page)
    videos = "[...document.querySelectorAll('video')]"
    assert browser.script(f"return {videos}.length") >= 4
    browser.script(f"{videos}.forEach(v => {{ v.preload = 'auto' }})")
    browser.until(f"return {videos}.every(v => v.readyState >= 2)")
    assert browser.script(f"return {videos}.every(v => v.videoWidth > 0 && v.duration > 1)")
    outcomes = browser.script(
        "return [...document.querySelector('.videos').children].map(f => f.dataset.outcome)"
    )
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == "success")
    assert {"failure", "success"} == set(outcomes)
    assert browser.errors() == []


def test_rollouts_are_filtered_by_outcome_and_condition(page: Path, browser: Browser):
    browser.open(page)
    shown = (
        "return [...document.querySelectorAll('#rollouts [data-outcome]')].filter("
        "e => !e.hidden).map(e => [e.dataset.outcome, e.dataset.condition, e.tagName])"
    )
    every = browser.script(shown)
    rollouts = [one for one in every if one[2] == "TR"]
    assert len(rollouts) == 3 * (8 + 2)  # the expert is listed too, at each delay

    def choose(field: str, value: str) -> list[list[str]]:
        browser.script(
            f"const s = document.querySelector('form.filter').elements.{field};"
            f"s.value = '{value}'; s.dispatchEvent(new Event('input', {{bubbles: true}}))"
        )
        return browser.script(shown)

    failures = choose("outcome", "failure")
    assert failures == [one for one in every if one[0] == "failure"]
    of_one = choose("condition", failures[0][1])
    assert of_one == [one for one in failures if one[1] == failures[0][1]]
    count = sum(one[2] == "TR" for one in of_one)
    told = browser.script("return document.querySelector('form.filter output').value")
    assert told == f"{count} of {len(rollouts)} rollouts"
    choose("condition", "")
    assert choose("outcome", "") == every


def test_without_javascript_everything_is_there_but_the_filter(page: Path, browser: Browser):
    with browser.without_scripts():
        browser.open(page)
        assert not browser.script("return document.querySelector('form.filter').offsetParent")
        hidden = "return [...document.querySelectorAll('main [hidden]')].map(e => e.tagName)"
        assert browser.script(hidden) == ["FORM"]
        rows = "return document.querySelectorAll('tr[data-outcome=failure]')"
        assert browser.script(f"{rows}.length") > 0
        assert browser.script(f"{rows}[0].offsetHeight") > 0
        assert (
            browser.script("return document.querySelectorAll('video:not([controls])').length") == 0
        )


@pytest.mark.parametrize("screen", SCREENS)
def test_light_and_dark_can_both_be_read(page: Path, browser: Browser, screen: str, tmp_path: Path):
    backgrounds: set[str] = set()
    for scheme in ("light", "dark"):
        browser.open(page, screen, scheme)
        assert browser.contrast() >= 4.5
        backgrounds.add(browser.script("return getComputedStyle(document.body).backgroundColor"))
        browser.until("return [...document.querySelectorAll('video')].every(v => v.readyState > 0)")
        browser.screenshot(tmp_path / f"{screen}-{scheme}.png")
        assert (tmp_path / f"{screen}-{scheme}.png").stat().st_size > 50_000
    assert len(backgrounds) == 2
