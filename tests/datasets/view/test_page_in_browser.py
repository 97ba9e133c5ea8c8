"""The page in Chromium: it plays, and can be read in light and dark, wide and narrow."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.view.page import page_html

MakeEpisode = Callable[[int, int], Episode]
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SCREENS = {"phone": (390, 844), "desktop": (1280, 900)}

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not (CHROMIUM.exists() and DRIVER.exists()),
        reason="needs the packages chromium and chromium-driver",
    ),
]


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
def driver() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(executable_path=str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def shown(driver: Chrome, page: Path, screen: str = "desktop", scheme: str = "light") -> None:
    width, height = SCREENS[screen]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {**metrics, "mobile": screen == "phone"}
    )
    colours = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
    driver.get(page.as_uri())


def script(driver: Chrome, code: str) -> Any:
    return driver.execute_script(f"const $ = (s) => document.querySelector(s);{code}")


def test_the_slider_moves_frames_cursors_and_numbers(driver: Chrome, page: Path):
    shown(driver, page)
    move = (
        "const s = $('#episode-0 .player input'); s.value = arguments[0] ?? 20;"
        "s.dispatchEvent(new Event('input')); "
    )
    state = (
        "return [$('#episode-0 .frame').src, $('#episode-0 .cursor').getAttribute('x1'),"
        "$('#episode-0 .plot output').value, $('#episode-0 .player output').value]"
    )
    before = script(driver, state)
    after = script(driver, move + state)
    assert all(one != two for one, two in zip(before, after, strict=True))
    assert after[3] == "step 20 of 30, 0.40 s"
    store = EpisodeStore.open(page.parent / "lift.zarr")
    assert float(after[2]) == pytest.approx(store.arrays(0)["action"][20, 0], rel=1e-3)
    other = script(driver, "return $('#episode-1 .player output').value")
    assert other == "step 0 of 12, 0.00 s"


def test_an_episode_plays_until_it_is_stopped(driver: Chrome, page: Path):
    shown(driver, page)
    script(driver, "$('#episode-0 button').click()")
    WebDriverWait(driver, 30).until(
        lambda _: script(driver, "return Number($('#episode-0 input').value) > 3")
    )
    script(driver, "$('#episode-0 .strip img').click()")  # its first frame, and stop
    assert script(driver, "return $('#episode-0 input').value") == "0"
    assert script(driver, "return $('#episode-0 button').textContent") == "▶"


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_scrolls_sideways_and_the_console_stays_quiet(
    driver: Chrome, page: Path, screen: str
):
    driver.get_log("browser")
    shown(driver, page, screen)
    script(driver, "document.querySelectorAll('details').forEach(d => d.open = true)")
    assert script(driver, "return document.documentElement.scrollWidth") <= SCREENS[screen][0]
    assert driver.get_log("browser") == []
    outside = script(
        driver,
        "return [...document.querySelectorAll('svg text')].filter(t => {"
        "const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();"
        "return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1 })"
        ".map(t => t.textContent)",
    )
    assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_both_be_read(driver: Chrome, page: Path, scheme: str):
    shown(driver, page, scheme=scheme)
    contrast = """
        const luminance = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => { v /= 255;
          return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 });
          return .2126 * r + .7152 * g + .0722 * b };
        const page = luminance(getComputedStyle(document.body).backgroundColor);
        const words = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        return Math.min(...[...document.querySelectorAll('main *')]
          .filter(e => e.offsetParent && words(e))
          .map(e => luminance(getComputedStyle(e).color))
          .map(l => (Math.max(l, page) + .05) / (Math.min(l, page) + .05)))
    """
    assert driver.execute_script(contrast) >= 4.5  # what WCAG asks of text
    background = script(driver, "return getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, background.strip("rgb()").split(","))) < 3 * 64
    assert dark == (scheme == "dark")


def test_without_scripts_strips_and_plots_are_there(driver: Chrome, page: Path):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        shown(driver, page)
        assert script(driver, "return document.querySelectorAll('.strip img').length") == 32
        assert script(driver, "return $('polyline.line').getBoundingClientRect().width") > 100
        assert script(driver, "return $('.player').offsetParent") is None
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
