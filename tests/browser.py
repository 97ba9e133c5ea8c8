"""Chromium for tests that look at a page as a phone and as a desktop show it, in light and dark."""

import base64
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SCREENS = {"phone": (390, 844), "desktop": (1280, 900)}
needs_browser = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()),
    reason="needs the packages chromium and chromium-driver",
)
# Of all words on the page, that which stands out least.
_CONTRAST = """
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


class Browser:
    """One page, in any size and in light or dark."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    def open(self, page: Path | str, screen: str = "desktop", scheme: str = "light") -> None:
        """A file, or an address."""
        width, height = SCREENS[screen]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
        self._driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**metrics, "mobile": screen == "phone"}
        )
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        self.errors()
        self._driver.get(page if isinstance(page, str) else page.as_uri())

    def script(self, code: str) -> Any:
        return self._driver.execute_script(code)

    def until(self, code: str) -> None:
        WebDriverWait(self._driver, 30).until(lambda _: self.script(code))

    def errors(self) -> list[str]:
        """What the console has said since it was last asked."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    @contextmanager
    def without_scripts(self) -> Generator[None]:
        """Those of the page; `script` still works."""
        command = "Emulation.setScriptExecutionDisabled"
        self._driver.execute_cdp_cmd(command, {"value": True})
        try:
            yield
        finally:
            self._driver.execute_cdp_cmd(command, {"value": False})

    def contrast(self) -> float:
        """The least of any text with the page behind it; 4.5 is what WCAG asks for."""
        return self.script(_CONTRAST)

    def screenshot(self, path: Path) -> None:
        """The whole page."""
        shot = self._driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True}
        )
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def open_browser() -> Generator[Browser]:
    """Chromium without a window, closed at the end."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(executable_path=str(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
