"""Which Python a suite's environment runs in, and how it ends; the suites are in tests/adapters."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import loopdit
from loopdit.envs.suites.catalogue import SUITES, Suite, suite_of
from loopdit.errors import ConfigError, ServerError
from loopdit.eval.remote_env import RemoteEnv
from loopdit.eval.suite_env import SuiteProcess, is_suite_env, make_suite_env

pytestmark = pytest.mark.system

SCRIPTS = Path(loopdit.__file__).parents[2] / "scripts" / "suites"


def test_a_suite_that_is_not_installed_is_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOOPDIT_SUITES", str(tmp_path))
    with pytest.raises(ConfigError, match=r"needs Meta-World.*make suites SUITE=metaworld"):
        make_suite_env("metaworld/reach-v3")


def test_names_of_suites_and_addresses_are_told_from_our_own():
    assert is_suite_env("metaworld/reach-v3")
    assert is_suite_env("tcp://127.0.0.1:5600")
    assert not is_suite_env("lift")
    assert not is_suite_env("loopdit/Lift-v0")
    with pytest.raises(ConfigError, match=r"of no suite known here.*metaworld/reach-v3"):
        make_suite_env("metawrold/reach-v3")


def test_every_suite_has_its_pins():
    assert {suite.folder for suite in SUITES.values()} == {p.stem for p in SCRIPTS.glob("*.txt")}


def test_a_server_process_ends_with_whoever_started_it(tmp_path: Path):
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from loopdit.eval.suite_env import SuiteProcess\n"
        "child = SuiteProcess(Path(sys.executable), 'lift')\n"
        f"Path({str(tmp_path / 'pid')!r}).write_text(str(child._process.pid))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def test_why_a_server_did_not_start_is_in_the_error():
    process = SuiteProcess(Path(sys.executable), "")  # no env= at all
    with pytest.raises(ServerError, match=r"while it started.*status 1.*env= is missing"):
        RemoteEnv(process.endpoint, ended=process.ended, on_close=process.close)
    assert not Path(process.endpoint.removeprefix("ipc://")).parent.exists()


def test_a_name_that_the_other_side_does_not_have_is_refused_there():
    process = SuiteProcess(Path(sys.executable), "no-such-task")
    with pytest.raises(ConfigError, match="env=no-such-task is unknown"):
        RemoteEnv(process.endpoint, 16, ended=process.ended, on_close=process.close)


def test_a_suite_is_found_by_what_stands_before_the_slash():
    assert isinstance(suite_of("robosuite/lift"), Suite)
    assert suite_of("robosuite") is None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
