import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.eval.runs.test_results import rollouts

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.rollout_record import Episode, from_record, to_record
from loopdit.eval.runs.journal import FORMAT, JournalWriter, encoded, read_journal
from loopdit.eval.runs.plan import Job

HEADER: dict[str, Any] = {"kind": "run", "format": FORMAT, "format_version": 1, "run": "r"}


def line(number: int) -> dict[str, Any]:
    return {"kind": "rollout", "run": "r", "seed": number}


def written(folder: Path, records: list[dict[str, Any]]) -> Path:
    with JournalWriter(folder) as journal:
        for record in records:
            journal.append(record)
    return folder / "rollouts.jsonl"


def test_lines_are_json_and_come_back_by_run(tmp_path: Path):
    other = {**HEADER, "run": "s"}
    end = {"kind": "end", "run": "r"}
    path = written(tmp_path, [HEADER, line(1), line(2), end, other])
    assert [json.loads(text)["kind"] for text in path.read_text().splitlines()] == [
        *("run", "rollout", "rollout", "end", "run")
    ]
    first, second = read_journal(tmp_path).runs
    assert first.rollouts == [line(1), line(2)]
    assert (first.digest, first.finished, second.digest, second.finished) == ("r", True, "s", False)


def test_a_rollout_comes_back_to_the_bit(tmp_path: Path):
    rng = np.random.default_rng(0)
    (done,) = rollouts("s")
    done = replace(done, actions=rng.normal(size=(9, 7)).astype("f4"))
    job = Job("", Condition(2, 10, delay="uniform:1-3"), done.seed)
    episode = Episode(job, done, np.arange(10, dtype=np.uint32), "", 1)
    written(tmp_path, [HEADER, to_record(episode, "r")])
    back = from_record(read_journal(tmp_path).runs[0].rollouts[0])
    assert (back.job, back.rollout, back.error, back.restarts) == (job, done, "", 1)
    assert back.rollout.actions.tobytes() == done.actions.tobytes()
    assert back.rollout.actions.shape == (9, 7)
    assert back.trace.tolist() == list(range(10))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400))
def test_wherever_writing_stopped_the_whole_lines_are_there_and_it_can_go_on(
    tmp_path: Path, cut: int
):
    whole = [HEADER, line(1), line(2), line(3)]
    content = b"".join(map(encoded, whole))[:cut]
    (tmp_path / "rollouts.jsonl").write_bytes(content)
    complete = content.count(b"\n")
    journal = read_journal(tmp_path)
    assert sum(1 + len(run.rollouts) for run in journal.runs) == complete
    assert (journal.torn > 0) == (not content.endswith(b"\n") and bool(content))
    written(tmp_path, whole[complete:])
    (run,) = read_journal(tmp_path).runs
    assert run.rollouts == whole[1:]


@pytest.mark.parametrize(
    ("before", "after"), [(b'"seed": 2', b'"seed": 7'), (b'{"kind": "rollout"', b'{"kind')]
)
def test_a_damaged_line_is_named(tmp_path: Path, before: bytes, after: bytes):
    path = written(tmp_path, [HEADER, line(1), line(2), line(3)])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(before, after)
    path.write_bytes(b"".join(lines))
    with pytest.raises(ConfigError, match=r"line 3 of .*rollouts\.jsonl is damaged"):
        read_journal(tmp_path)
    # As the message says: without that line it goes on, and the rollout is run again.
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert read_journal(tmp_path).runs[0].rollouts == [line(1), line(3)]


def test_a_journal_of_another_version_or_without_its_beginning_is_refused(tmp_path: Path):
    path = written(tmp_path, [{**HEADER, "format_version": 9}])
    with pytest.raises(ConfigError, match="version 9; this loopdit reads"):
        read_journal(tmp_path)
    path.write_bytes(encoded(line(1)))
    with pytest.raises(ConfigError, match=r"line 1 of .*its run has not begun"):
        read_journal(tmp_path)


_FULL = """
import resource, signal, sys
from pathlib import Path
from loopdit.eval.runs.journal import JournalWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
with JournalWriter(Path(sys.argv[1])) as journal:
    journal.append({"kind": "run", "format": "loopdit-rollouts", "format_version": 1, "run": "r"})
    for number in range(100):
        journal.append({"kind": "rollout", "run": "r", "seed": number})
"""


def test_a_full_disk_is_one_error_and_what_was_written_stays(tmp_path: Path):
    """A limit on file size stands in for the disk."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "ConfigError: cannot write" in done.stderr
    assert "safe in it. Free space and give the same command again" in done.stderr
    journal = read_journal(tmp_path)
    (run,) = journal.runs
    assert [record["seed"] for record in run.rollouts] == list(range(len(run.rollouts)))
    assert 0 < len(run.rollouts) < 10
    assert journal.torn == 0
