import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.eval.pool_jobs import start, start_dying

from loopdit.errors import ServerError
from loopdit.eval.runs.worker_pool import ATTEMPTS, InProcess, ProcessPool, WorkerDied, WorkerFailed


def test_every_job_is_done_once_by_as_many_processes_as_were_asked_for():
    jobs = [f"echo:{number}" for number in range(30)]
    with closing(ProcessPool(start, 2)) as pool:
        found = sorted((f.job, f.result, f.restarts) for f in pool.run(jobs))
        pids = {finished.result for finished in pool.run(["pid:"] * 20)}
    assert found == sorted((job, job.removeprefix("echo:"), 0) for job in jobs)
    assert len(pids) == 2
    assert str(os.getpid()) not in pids
    here = InProcess(start()).run(jobs)
    assert sorted((f.job, f.result, f.restarts) for f in here) == found


def test_the_job_of_a_worker_that_dies_is_done_again_and_counted(tmp_path: Path):
    deadly = f"die-once:{tmp_path / 'died'}"
    with closing(ProcessPool(start, 2)) as pool:
        found = {f.job: f for f in pool.run(["echo:a", deadly, "echo:b", "echo:c"])}
    assert {job: f.restarts for job, f in found.items()} == {
        "echo:a": 0,
        deadly: 1,
        "echo:b": 0,
        "echo:c": 0,
    }
    assert found[deadly].result == str(tmp_path / "died")


@pytest.mark.parametrize("deadly", ["die:", "abort:"])
def test_a_job_that_always_kills_its_worker_is_given_up_and_the_others_are_done(deadly: str):
    with closing(ProcessPool(start, 1)) as pool:
        found = {f.job: f for f in pool.run(["echo:a", deadly, "echo:b"])}
    assert (found[deadly].result, found[deadly].restarts) == (None, ATTEMPTS)
    assert [found[job].result for job in ("echo:a", "echo:b")] == ["a", "b"]


def test_a_worker_that_is_killed_from_outside_is_replaced():
    with closing(ProcessPool(start, 1)) as pool:
        results = pool.run(["pid:", "pid:"])
        first = next(results)
        assert first.result is not None
        os.kill(int(first.result), signal.SIGKILL)
        second = next(results)
    assert second.result != first.result


def test_a_users_mistake_in_a_worker_is_raised_here_and_a_bug_keeps_its_traceback():
    with (
        closing(ProcessPool(start, 1)) as pool,
        pytest.raises(ServerError, match="the server refused"),
    ):
        list(pool.run(["refuse:"]))
    with (
        closing(ProcessPool(start, 1)) as pool,
        pytest.raises(WorkerFailed, match=r"pool_jobs\.py(.|\n)*ZeroDivisionError: in the depths"),
    ):
        list(pool.run(["bug:"]))


def test_workers_that_die_while_starting_end_the_run_with_one_sentence():
    with (
        closing(ProcessPool(start_dying, 1)) as pool,
        pytest.raises(WorkerDied, match=r"before they were ready \(exit status 7\). Use workers=1"),
    ):
        list(pool.run(["echo:a"] * 5))


def test_jobs_are_asked_for_only_when_a_worker_is_free():
    asked: list[int] = []

    def jobs():
        for number in range(100):
            asked.append(number)
            yield f"echo:{number}"

    with closing(ProcessPool(start, 2)) as pool:
        results = pool.run(jobs())
        for _ in range(5):
            next(results)
    assert len(asked) <= 5 + 2 + 2


_PARENT = """
import sys
from tests.eval.pool_jobs import start
from loopdit.eval.runs.worker_pool import ProcessPool
if __name__ == "__main__":
    for finished in ProcessPool(start, 1).run(["pid:"]):
        print(finished.result, flush=True)
    sys.stdin.read()
"""


@pytest.mark.system
def test_workers_end_with_their_parent():
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)  # it is there
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                return
            if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return  # it ended, and nobody has asked how
            time.sleep(0.05)
    pytest.fail("the worker outlived its parent by 20 s")


_SPAWNER = """
from contextlib import closing
from tests.eval.pool_jobs import start
from loopdit.eval.runs.worker_pool import ProcessPool
if __name__ == "__main__":
    with closing(ProcessPool(start, 2)) as pool:
        print(*(finished.result for finished in pool.run(["deaf:", "deaf:"])))
"""


@pytest.mark.system
def test_ctrl_c_is_left_to_the_parent_from_the_first_worker_of_a_process_on():
    """In a fresh process: the first spawn of one also starts what tracks its resources."""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _SPAWNER], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.split() == ["True", "True"]
