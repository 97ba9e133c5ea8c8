"""The live page of a real server, in Chromium as a phone and as a desktop show it."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from tests.browser import SCREENS, Browser, needs_browser, open_browser
from tests.deploy.operation.conftest import Watched, a_free_port, watched_server
from tests.deploy.planned_policy import PlannedEcho

from loopdit.datasets.spec import Observation, PolicySpec, TensorSpec
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import WireError
from loopdit.deploy.serving.served_policy import Inference

pytestmark = [pytest.mark.system, needs_browser]

LABELS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
UNITS = ("m", "m", "m", "rad", "rad", "rad", "1")


class MovingPolicy(PlannedEcho):
    """Seven actions that swing with the robot's first joint; two cameras."""

    spec = PolicySpec(
        observations=(
            TensorSpec("images.front", (48, 64, 3), "uint8"),
            TensorSpec("images.wrist", (48, 64, 3), "uint8"),
            TensorSpec("proprio", (7,), "float32", LABELS, UNITS),
        ),
        action=TensorSpec("action", (7,), "float32", LABELS, UNITS),
        action_frame="base of the robot",
        control_period_s=0.05,
    )
    horizon = 16

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        time.sleep(0.004 * loops)
        phase = observation["proprio"][0] + 0.05 * np.arange(16)[:, None]
        actions = np.sin(phase * np.arange(1, 8)).astype(np.float32)
        return Inference(actions, loops, steps, encode_us=900, denoise_us=4000 * loops)


def robot(endpoint: str, done: threading.Event, outcomes: list[str]) -> None:
    rows, columns = np.mgrid[:48, :64]
    with PolicyClient(endpoint) as policy:
        began = time.monotonic()
        for i in range(10**6):
            if done.wait(0.05):
                return
            now = time.monotonic() - began
            frame = np.stack([rows * 5, columns * 4, (rows + columns + i) % 256], -1)
            seen = {
                "images.front": frame.astype(np.uint8),
                "images.wrist": frame[::-1].astype(np.uint8).copy(),
                "proprio": np.full(7, now, np.float32),
            }
            try:
                policy.infer(seen, budget_s=0.003 if i % 9 == 0 else None, loops=1 + (i % 7 > 2))
                outcomes.append("chunk")
            except WireError as refused:
                outcomes.append(refused.code)


@pytest.fixture(scope="module")
def outcomes() -> list[str]:
    """What the robot's requests came to, in their order."""
    return []


@pytest.fixture(scope="module")
def server(outcomes: list[str]) -> Iterator[Watched]:
    done = threading.Event()
    with watched_server(MovingPolicy(), a_free_port()) as watched:
        thread = threading.Thread(target=robot, args=(watched.server.endpoint, done, outcomes))
        thread.start()
        try:
            yield watched
        finally:
            done.set()
            thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def show(browser: Browser, server: Watched, screen: str, scheme: str = "light") -> None:
    browser.open(f"{server.url}/", screen, scheme)
    browser.until("return document.querySelectorAll('#actions svg polyline').length > 6")
    browser.until("return [...document.images].filter(i => i.naturalWidth === 64).length === 2")


@pytest.mark.parametrize("screen", SCREENS)
def test_it_shows_cameras_actions_and_times_without_scrolling_sideways(
    server: Watched, browser: Browser, screen: str
):
    show(browser, server, screen)
    width = SCREENS[screen][0]
    assert browser.script("return document.documentElement.scrollWidth") <= width
    captions = (
        "return [...document.querySelectorAll('#actions figcaption')].map(c => c.textContent)"
    )
    assert browser.script(captions)[:4] == ["x, m", "y, m", "z, m", "roll, rad"]
    assert browser.script("return document.querySelectorAll('#times-plot .bar').length") >= 1
    assert browser.script("return document.querySelectorAll('#parts-plot .bar').length") == 5
    heights = browser.script(
        "return [...document.querySelectorAll('svg text')].map("
        "t => t.getBoundingClientRect().height)"
    )
    assert min(heights) >= 10
    assert browser.errors() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out_in_light_and_dark(server: Watched, browser: Browser, scheme: str):
    show(browser, server, "desktop", scheme)
    assert browser.contrast() >= 4.5


def test_the_cameras_go_on_at_no_more_than_five_a_second(server: Watched, browser: Browser):
    show(browser, server, "desktop")
    first, began = server.json("/live.json")["frames"], time.monotonic()
    time.sleep(1.5)
    shown = server.json("/live.json")["frames"] - first
    assert 2 <= shown <= 5 * (time.monotonic() - began) + 1


def test_its_button_stops_the_robot_and_a_second_press_releases_it(
    server: Watched, browser: Browser, outcomes: list[str]
):
    show(browser, server, "phone")
    button = browser.script("return document.getElementById('stop').getBoundingClientRect()")
    assert 0 <= button["top"] < button["bottom"] <= SCREENS["phone"][1]
    assert button["height"] >= 44
    browser.script("document.getElementById('stop').click()")
    browser.until("return document.getElementById('state').textContent.startsWith('STOPPED')")
    seen = len(outcomes)
    deadline_s = time.monotonic() + 10
    while len(outcomes) < seen + 5 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert set(outcomes[seen + 1 : seen + 5]) == {"STOPPED"}
    release = "document.getElementById('release').click()"
    browser.script(release)
    assert browser.script("return document.getElementById('release').textContent") != ""
    assert server.json("/live.json")["stop"]["pressed"]  # one press asks whether it is meant
    browser.script(release)
    browser.until("return document.getElementById('state').textContent.startsWith('Ready')")
    seen = len(outcomes)
    while "chunk" not in outcomes[seen:] and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert "chunk" in outcomes[seen:]
