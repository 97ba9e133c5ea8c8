"""Logs for programs, and what a service manager is told, of a real `policy-serve`."""

import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.operation.conftest import a_free_port
from tests.deploy.serving.serving_process import serving

from loopdit.deploy.operation.logs import JsonFormatter
from loopdit.deploy.operation.service_manager import READY, notify
from loopdit.deploy.serving.config import ServeConfig
from loopdit.errors import ConfigError


def test_a_record_is_one_line_with_its_traceback():
    try:
        raise ValueError("a\nb")
    except ValueError:
        record = logging.makeLogRecord({"name": "x", "msg": "%s\nfailed", "args": ("it",)})
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert said["message"] == "it\nfailed"
    assert said["exception"].endswith("ValueError: a\nb")
    assert said["time"].endswith("+00:00")


def test_a_service_manager_is_told_at_the_socket_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in (str(tmp_path / "notify"), "\0loopdit-test-notify"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(5)
            manager.bind(name)
            monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
            notify(READY)
            assert manager.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify(READY)  # nobody listens: nothing to do
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify(READY)


@pytest.mark.system
def test_a_server_says_each_line_as_json_and_tells_systemd_when_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    http_port, store = a_free_port(), tmp_path / "served.zarr"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with serving(
            *("policy=zeros", "address=tcp://127.0.0.1:0", "log=json"),
            *(f"http_port={http_port}", f"record={store}"),
        ) as server:
            said = [json.loads(line) for line in server.until('{"time')]
            while not said[-1]["message"].startswith("ready "):
                said.append(json.loads(server.until('{"time')[-1]))
            assert manager.recv(100) == b"READY=1"
            server.process.terminate()
            assert manager.recv(100) == b"STOPPING=1"
            server.end()
    assert f"page      http://127.0.0.1:{http_port}/" in [line["message"] for line in said]
    assert {line["level"] for line in said} == {"INFO"}
    assert store.is_dir()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"log": "xml"}, "log=xml is unknown"),
        ({"http_port": 70000}, "http_port=70000 is no port"),
        ({"record_mb": 5}, "record_mb=5 does nothing without record="),
        ({"record": "a.zarr", "record_mb": 0}, "record_mb=0 is below 1"),
        ({"record": "served"}, r"record=served has to end in \.zarr"),
        ({"threads": 100_000}, "threads=100000 is above .*, the cores of this machine"),
        ({"batch": 100_000}, "batch=100000 is above 256, the sessions"),
        ({"replicas": 100_000}, "replicas=100000 is above 256"),
        ({"replicas": 0}, "replicas=0 is below 1"),
        ({"steps": 100_000}, "steps=100000 is above 1000"),
        ({"replica_gpus": 1}, "replica_gpus=1 does nothing without launcher=ray"),
        ({"launcher": "slurm"}, "launcher=slurm is unknown"),
        ({"launcher": "ray", "policy": "zeros"}, "launcher=ray does nothing"),
        ({"mode": "control", "openpi_port": 1}, "openpi_port=1 does nothing without mode=reply"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        ServeConfig(**options)
