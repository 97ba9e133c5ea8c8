"""The page of a real benchmark, opened in Chromium as a phone and as a desktop show it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tests.browser import SCREENS, Browser, needs_browser, open_browser

from loopdit.deploy.bench.command import BenchConfig, run_bench
from loopdit.deploy.bundle.bundle import Bundle

pytestmark = [pytest.mark.system, needs_browser]


@pytest.fixture(scope="module")
def page(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench")
    config = BenchConfig(
        bundle=str(tiny_bundle.path),
        backends=["onnxruntime", "cuda-graph"],
        repetitions=40,
        out=str(out),
    )
    run_bench(config, Console(quiet=True))
    return out / "bench.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_never_scrolls_sideways_and_the_console_stays_quiet(
    page: Path, browser: Browser, screen: str
):
    browser.open(page, screen)
    width = SCREENS[screen][0]
    assert browser.script("return innerWidth") == width
    assert browser.script("return document.documentElement.scrollWidth") <= width
    assert browser.errors() == []


@pytest.mark.parametrize("screen", SCREENS)
def test_the_letters_of_every_plot_can_be_read(page: Path, browser: Browser, screen: str):
    browser.open(page, screen)
    heights = browser.script(
        "return [...document.querySelectorAll('svg text')].map("
        "t => t.getBoundingClientRect().height)"
    )
    assert len(heights) > 20
    assert min(heights) >= 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out_in_light_and_dark(page: Path, browser: Browser, scheme: str):
    browser.open(page, "desktop", scheme)
    assert browser.contrast() >= 4.5
    ink = "return getComputedStyle(document.body).color"
    plotted = "return getComputedStyle(document.querySelector('svg text')).fill"
    assert browser.script(plotted) == browser.script(ink)
