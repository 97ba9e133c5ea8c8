"""`policy-bench transport`: every transport is really asked, and what is missing says why."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from loopdit.deploy.bench.transport.awake import awake_cores
from loopdit.deploy.bench.transport.command import OTHERS, TransportConfig, run_transport
from loopdit.deploy.bench.transport.lerobot_peer import LeRobotPeer
from loopdit.deploy.bench.transport.measure import measure
from loopdit.deploy.bench.transport.peers import PEERS
from loopdit.errors import ConfigError

pytestmark = pytest.mark.system


def test_each_transport_has_a_row_and_a_ratio(tmp_path: Path):
    config = TransportConfig(requests=12, paced=4, rate_hz=200.0, turn=6, out=str(tmp_path))
    run_transport(config, Console(quiet=True))
    written = json.loads((tmp_path / "transport.json").read_text())
    rows = {row["transport"]: row for row in written["rows"]}
    assert list(rows) == [
        *("loopdit-tcp", "loopdit-ipc", "loopdit-shm", "loopdit-curve"),
        *("pyzmq-bare", "openpi", "groot-like", "lerobot-grpc"),
    ]
    for row in rows.values():
        assert row["n"] == 12
        assert 0 < row["min_us"] <= row["p50_us"] <= row["p90_us"] <= row["p99_us"]
    assert {row["n"] for row in written["paced_rows"]} == {4}
    ratio = rows["loopdit-tcp"]["p50_us"] / rows["pyzmq-bare"]["p50_us"]
    assert written["ratios"]["loopdit-tcp/pyzmq-bare p50"] == pytest.approx(ratio, abs=1e-3)
    fastest = min(rows[name]["p50_us"] for name in OTHERS)
    ratio = rows["loopdit-shm"]["p50_us"] / fastest
    assert written["ratios"]["loopdit-shm/fastest other p50"] == pytest.approx(ratio, abs=1e-3)
    assert written["machine"]["cores"] >= 1


def test_a_transport_that_is_missing_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LeRobotPeer, "missing", lambda _: "not installed: pip install grpcio")
    samples = measure(["lerobot-grpc", "pyzmq-bare"], 3, 0, 50.0, 3, seed=0)
    assert samples.missing == {"lerobot-grpc": "not installed: pip install grpcio"}
    assert list(samples.back_to_back) == ["pyzmq-bare"]
    assert all(math.isfinite(time) for time in samples.back_to_back["pyzmq-bare"])


def test_cores_are_kept_awake_by_what_gives_way_to_everything_and_is_gone_afterwards():
    before = _children()
    with awake_cores() as cores:
        keepers = _children() - before
        kept = {core for keeper in keepers for core in os.sched_getaffinity(keeper)}
        assert kept == set(cores) == os.sched_getaffinity(0)
        assert {os.sched_getscheduler(keeper) for keeper in keepers} == {os.SCHED_IDLE}
    assert _children() <= before


def test_what_is_no_transport_is_refused():
    with pytest.raises(ConfigError, match=f"Choose from: {', '.join(PEERS)}"):
        TransportConfig(transports=["carrier-pigeon"])


def test_it_is_a_subcommand_of_policy_bench(tmp_path: Path):
    command = [sys.executable, "-m", "loopdit.deploy.bench.command", "transport"]
    few = ["requests=3", "paced=0", "awake=true"]
    options = ["transports=[pyzmq-bare]", *few, f"out={tmp_path}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "transport.json").read_text())["rows"][0]["n"] == 3


def _children() -> set[int]:
    """Processes of ours, started by whichever thread."""
    mine = Path("/proc/self/task").glob("*/children")
    return {int(child) for thread in mine for child in thread.read_text().split()}
