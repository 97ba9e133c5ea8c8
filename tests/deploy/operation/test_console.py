"""The HTTP port of a real server: health, metrics, the live page's data and the stop."""

import http.client
import io
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tests.deploy.echo_policy import EchoPolicy, HeldPolicy, expected_actions, observation
from tests.deploy.operation.conftest import Watched, watched_server
from tests.deploy.raw_client import RawClient

from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import ErrorCode, Obs, WireError
from loopdit.deploy.operation.http_door import TOKEN_HEADER, cannot_be_a_site
from loopdit.errors import ServerError


def metrics(server: Watched) -> dict[str, float]:
    """{name{label values}: value}, read by Prometheus' own parser."""
    text = server.get("/metrics")[1].decode()
    return {
        "|".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def order(server: Watched, pressed: str, **headers: str) -> tuple[int, bytes]:
    given = {TOKEN_HEADER: server.token, "Content-Type": "application/json", **headers}
    return server.request("/stop", b'{"pressed": %s}' % pressed.encode(), given)


def test_it_is_ready_once_it_answers_and_no_longer_when_it_has_stopped(free_port: int):
    with watched_server(EchoPolicy(), free_port, start=False) as server:
        assert server.get("/healthz")[0] == 503
        assert metrics(server)["loopdit_ready"] == 0
        server.server.start()
        assert server.get("/healthz")[0] == 200
        assert server.json("/healthz")["model_id"] == "echo-0"
        server.server.stop()
        assert server.get("/healthz")[0] == 503


def test_health_and_the_page_are_answered_while_an_inference_runs(free_port: int):
    policy = HeldPolicy()
    with watched_server(policy, free_port) as server, RawClient(server.server.endpoint) as robot:
        robot.open()
        robot.observe(2, observation())
        assert policy.began.acquire(timeout=10)
        status, _ = server.get("/healthz")
        assert status == 200
        assert server.json("/healthz")["busy_s"] > 0
        assert metrics(server)["loopdit_busy_seconds"] > 0
        assert server.json("/live.json")["server"]["busy_us"] > 0
        policy.let_go.release()
        robot.receive()


def test_metrics_count_what_was_answered_by_k_by_code_and_by_part(echo: Watched):
    with PolicyClient(echo.server.endpoint, shared_memory=False) as robot:
        for loops in (1, 2, 2):
            robot.infer(observation(), loops=loops, steps=3)
        with pytest.raises(WireError):
            robot.infer(observation(), loops=7)
        counted = metrics(echo)
    assert (counted["loopdit_chunks_total|1|3"], counted["loopdit_chunks_total|2|3"]) == (1, 2)
    assert counted["loopdit_errors_total|UNSUPPORTED"] == 1
    assert counted["loopdit_sessions"] == 1
    # The echo says 7 and 11 us: three chunks of them, all at most 10 us and at most 20 us.
    assert counted["loopdit_request_seconds_sum|encode"] == pytest.approx(21e-6)
    assert counted["loopdit_request_seconds_bucket|1e-05|encode"] == 3
    assert counted["loopdit_request_seconds_bucket|1e-05|denoise"] == 0
    assert counted["loopdit_request_seconds_bucket|2e-05|denoise"] == 3
    for part in ("queue", "decode", "encode", "denoise", "send", "total"):
        assert counted[f"loopdit_request_seconds_count|{part}"] == 3
        assert counted[f"loopdit_request_seconds_bucket|+Inf|{part}"] == 3
    parts = ("queue", "decode", "encode", "denoise", "send")
    assert counted["loopdit_request_seconds_sum|total"] == pytest.approx(
        sum(counted[f"loopdit_request_seconds_sum|{part}"] for part in parts)
    )


def test_a_chunk_after_its_deadline_and_one_refused_for_it_are_misses(free_port: int):
    policy = HeldPolicy()
    with watched_server(policy, free_port) as server, RawClient(server.server.endpoint) as robot:
        robot.open()
        robot.send(Obs(seq=2, epoch=1, budget_us=50_000), observation())
        assert policy.began.acquire(timeout=10)
        robot.send(Obs(seq=3, epoch=1, budget_us=1000), observation())
        refused, _ = robot.receive()
        assert getattr(refused, "code", "") == ErrorCode.LATE
        time.sleep(0.06)
        policy.let_go.release()
        robot.receive()
        counted = metrics(server)
        assert counted["loopdit_deadline_misses_total|answered"] == 1
        assert counted["loopdit_deadline_misses_total|refused"] == 1
        live = server.json("/live.json")
        assert (live["deadline_misses"], live["chunks"][-1]["late"]) == (2, True)


def test_the_page_is_told_the_actions_and_shown_the_frames_that_were_served(echo: Watched):
    with PolicyClient(echo.server.endpoint) as robot:
        robot.infer(observation(0.5, 10))
        assert echo.json("/live.json")["frames"] == 0  # nobody had looked
        seen = observation(0.25, 99)
        robot.infer(seen)
        live = echo.json("/live.json")
        robot.infer(observation(0.75, 200))  # within a fifth of a second: not shown
        status, content = echo.get("/camera/images.front?n=1")
    assert status == 200
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(content))), seen["images.front"])
    np.testing.assert_allclose(live["traces"][-1]["actions"], expected_actions(seen), rtol=1e-6)
    assert [action["label"] for action in live["actions"]] == ["x", "y", "gripper"]
    assert [chunk["loops"] for chunk in live["chunks"]] == [2, 2]
    assert echo.get("/camera/images.other")[0] == 404


def test_the_stop_of_the_page_stops_every_robot_until_it_is_released(echo: Watched):
    with PolicyClient(echo.server.endpoint) as robot:
        robot.infer(observation())
        assert order(echo, "true")[0] == 200
        with pytest.raises(WireError, match="live page") as stopped:
            robot.infer(observation())
        assert stopped.value.code == ErrorCode.STOPPED
        assert echo.json("/live.json")["stop"]["pressed"]
        assert metrics(echo)["loopdit_emergency_stop"] == 1
        assert order(echo, "false")[0] == 200
        robot.infer(observation())


def test_another_page_can_neither_press_nor_release_the_stop_nor_look(echo: Watched):
    good = {TOKEN_HEADER: echo.token}
    assert echo.request("/stop", b'{"pressed": true}', {})[0] == 403
    assert echo.request("/stop", b'{"pressed": true}', {TOKEN_HEADER: "guess"})[0] == 403
    elsewhere = {**good, "Origin": "http://evil.example"}
    assert echo.request("/stop", b'{"pressed": true}', elsewhere)[0] == 403
    # A name that its owner has made to mean this machine, so that its page reads ours.
    rebound = {**good, "Host": "evil.example"}
    for path in ("/", "/live.json", "/camera/images.front"):
        assert echo.get(path, **rebound)[0] == 403
    assert echo.request("/stop", b'{"pressed": true}', rebound)[0] == 403
    assert not echo.json("/live.json")["stop"]["pressed"]
    # What machines ask by whatever name they know.
    assert echo.get("/metrics", Host="robot.example:9000")[0] == 200


def test_what_is_no_order_is_refused(echo: Watched):
    for body in (b"", b"{}", b'{"pressed": 1}', b'{"pressed": true, "x": 1}', b"[" * 500):
        assert echo.request("/stop", body, {TOKEN_HEADER: echo.token})[0] == 400
    assert echo.request("/stop", b" " * 2000, {TOKEN_HEADER: echo.token})[0] == 413
    assert echo.request("/other", b"{}", {TOKEN_HEADER: echo.token})[0] == 404
    assert echo.get("/../etc/passwd")[0] == 404


def test_the_page_may_be_framed_by_none_and_loads_nothing_from_elsewhere(echo: Watched):
    connection = http.client.HTTPConnection(urlsplit(echo.url).netloc, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    policy, page = answer.getheader("Content-Security-Policy", ""), answer.read().decode()
    connection.close()
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("https", "http")


def test_connections_that_say_nothing_leave_room_for_the_operator_of_the_robot(echo: Watched):
    address = ("127.0.0.1", int(echo.url.rpartition(":")[2]))
    silent = [socket.create_connection(address) for _ in range(20)]
    try:
        assert echo.get("/healthz")[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_a_port_in_use_is_said_with_its_option(echo: Watched):
    port = int(echo.url.rpartition(":")[2])
    with pytest.raises(ServerError, match=f"http_port={port}"), watched_server(EchoPolicy(), port):
        pass


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("localhost", True),
        ("LOCALHOST:80", True),
        (socket.gethostname(), True),
        ("", False),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8080", False),
    ],
)
def test_only_names_that_no_foreign_server_can_answer_are_ours(host: str, ours: bool):
    assert cannot_be_a_site(host) == ours
