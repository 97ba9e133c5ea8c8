"""`policy-serve mode=control` with an HTTP port, as a real process."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.deploy.operation.conftest import Watched, a_free_port
from tests.deploy.serving.serving_process import serving

from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.operation.http_door import TOKEN_HEADER
from loopdit.deploy.robot.control.robot_link import RobotLink


def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.system
def test_control_mode_shows_what_it_sends_and_is_stopped_from_its_page():
    port = a_free_port()
    console = Watched(None, f"http://127.0.0.1:{port}")  # pyright: ignore[reportArgumentType]
    anywhere = "tcp://127.0.0.1:0"
    with serving(
        *("mode=control", "policy=zeros", f"address={anywhere}", f"http_port={port}"),
        *(f"control.actions={anywhere}", f"control.observations={anywhere}"),
    ) as server:
        said = {line.split()[0]: line.split()[1].rstrip(",") for line in server.until("ready")}
        assert said["page"] == f"{console.url}/"
        spec = Bundle.open(default_bundle()).spec
        robot = RobotLink(said["actions"], said["observed"], 0.5)

        def state() -> dict[str, Any]:
            robot.observe({t.name: np.zeros(t.shape, t.dtype) for t in spec.observations})
            return console.json("/live.json")

        until(lambda: console.get("/healthz")[0] == 200)
        until(lambda: (state()["control"] or {}).get("rate_hz", 0) > 40 and state()["traces"])
        assert len(state()["traces"][0]["actions"][0]) == spec.action.shape[0]
        until(lambda: state()["frames"])
        for camera in spec.cameras:
            status, png = console.get(f"/camera/{camera.name}")
            assert status == 200
            shown = np.asarray(Image.open(io.BytesIO(png)))
            assert shown.shape == camera.shape
            assert not shown.any()

        def pressed(on: str) -> None:
            headers = {TOKEN_HEADER: console.token}
            assert console.request("/stop", b'{"pressed": %s}' % on.encode(), headers)[0] == 200

        pressed("true")
        until(lambda: state()["stop"]["pressed"])
        until(lambda: b'guard="emergency_stop"' in console.get("/metrics")[1])
        assert b"loopdit_emergency_stop 1.0" in console.get("/metrics")[1]
        pressed("false")
        until(lambda: not state()["stop"]["pressed"])
        robot.close()
