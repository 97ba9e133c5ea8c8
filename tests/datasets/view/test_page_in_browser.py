"""The page in Chromium: it plays, and can be read in light and dark, wide and narrow."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.browser import SCREENS, Browser, needs_browser, open_browser

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.view.page import page_html

MakeEpisode = Callable[[int, int], Episode]

pytestmark = [pytest.mark.system, needs_browser]


@pytest.fixture
def page(tmp_path: Path, spec: PolicySpec, episode: MakeEpisode) -> Path:
    """Two episodes of 30 and 12 steps, the first with an extra and metadata."""
    writer = EpisodeWriter.create(tmp_path / "lift.zarr", replace(spec, control_period_s=0.02), {})
    extras = {"obs/reward": np.zeros(30)}
    writer.append(replace(episode(0, 30), extras=extras, metadata={"hand": "left"}))
    writer.append(episode(1, 12))
    out = tmp_path / "page.html"
    out.write_text(page_html(EpisodeStore.open(tmp_path / "lift.zarr"), [0, 1], 10, 320), "utf-8")
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def script(browser: Browser, code: str) -> Any:
    return browser.script(f"const $ = (s) => document.querySelector(s);{code}")


def test_the_slider_moves_frames_cursors_and_numbers(browser: Browser, page: Path):
    browser.open(page)
    move = (
        "const s = $('#episode-0 .player input'); s.value = arguments[0] ?? 20;"
        "s.dispatchEvent(new Event('input')); "
    )
    state = (
        "return [$('#episode-0 .frame').src, $('#episode-0 .cursor').getAttribute('x1'),"
        "$('#episode-0 .plot output').value, $('#episode-0 .player output').value]"
    )
    before = script(browser, state)
    after = script(browser, move + state)
    assert all(one != two for one, two in zip(before, after, strict=True))
    assert after[3] == "step 20 of 30, 0.40 s"
    store = EpisodeStore.open(page.parent / "lift.zarr")
    assert float(after[2]) == pytest.approx(store.arrays(0)["action"][20, 0], rel=1e-3)
    other = script(browser, "return $('#episode-1 .player output').value")
    assert other == "step 0 of 12, 0.00 s"


def test_an_episode_plays_until_it_is_stopped(browser: Browser, page: Path):
    browser.open(page)
    script(browser, "$('#episode-0 button').click()")
    browser.until("return Number(document.querySelector('#episode-0 input').value) > 3")
    script(browser, "$('#episode-0 .strip img').click()")  # its first frame, and stop
    assert script(browser, "return $('#episode-0 input').value") == "0"
    assert script(browser, "return $('#episode-0 button').textContent") == "▶"


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_scrolls_sideways_and_the_console_stays_quiet(
    browser: Browser, page: Path, screen: str
):
    browser.open(page, screen)
    script(browser, "document.querySelectorAll('details').forEach(d => d.open = true)")
    assert script(browser, "return document.documentElement.scrollWidth") <= SCREENS[screen][0]
    assert browser.errors() == []
    outside = script(
        browser,
        "return [...document.querySelectorAll('svg text')].filter(t => {"
        "const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();"
        "return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1 })"
        ".map(t => t.textContent)",
    )
    assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_both_be_read(browser: Browser, page: Path, scheme: str):
    browser.open(page, scheme=scheme)
    assert browser.contrast() >= 4.5
    background = script(browser, "return getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, background.strip("rgb()").split(","))) < 3 * 64
    assert dark == (scheme == "dark")


def test_without_scripts_strips_and_plots_are_there(browser: Browser, page: Path):
    with browser.without_scripts():
        browser.open(page)
        assert script(browser, "return document.querySelectorAll('.strip img').length") == 32
        assert script(browser, "return $('polyline.line').getBoundingClientRect().width") > 100
        assert script(browser, "return $('.player').offsetParent") is None
