import json
import platform
from pathlib import Path

import pytest

from loopdit import __version__
from loopdit.machine import (
    _quota_cores,  # pyright: ignore[reportPrivateUsage] - a control group cannot be made here
    describe_machine,
    machine_and_versions,
    usable_cores,
)


def test_it_says_the_machine_and_the_versions_in_plain_json():
    facts = machine_and_versions()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["loopdit"] == __version__
    assert facts["versions"]["python"] == platform.python_version()
    assert facts["machine"]["cores"] == usable_cores() >= 1
    assert facts["machine"]["memory_gib"] > 0
    assert facts["machine"]["cpu"] in describe_machine(facts)


def test_it_says_nothing_of_whose_machine_it_is():
    said = set(machine_and_versions()["machine"])
    hardware = {"cpu", "architecture", "cores", "memory_gib", "load_average"}
    assert said == hardware | {"os", "kernel"}


@pytest.mark.parametrize(
    ("content", "cores"),
    [("200000 100000\n", 2), ("max 100000\n", None), ("50000 100000\n", 1), ("", None)],
)
def test_a_control_groups_quota_counts_as_whole_cores(
    tmp_path: Path, content: str, cores: int | None
):
    (tmp_path / "cpu.max").write_text(content)
    assert _quota_cores(tmp_path / "cpu.max") == cores
