import os
from pathlib import Path

import pytest

from loopdit.deploy.bench.own_process import ChildProcess
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError

pytestmark = pytest.mark.system  # starts processes


def test_calls_answer_from_one_object_in_another_process():
    child = ChildProcess("numbers", list, (3, 1, 2))
    try:
        child.call("sort")
        assert child.call("index", 3) == 2
    finally:
        child.close()


def test_what_making_it_raises_is_raised_here(tmp_path: Path):
    with pytest.raises(BundleError, match="gone does not exist"):
        ChildProcess("bundle", Bundle.open, tmp_path / "gone")


def test_a_refused_call_leaves_the_child_alive(tiny_bundle: Bundle):
    child = ChildProcess("bundle", Bundle.open, tiny_bundle.path)
    try:
        with pytest.raises(BundleError, match="loops=9"):
            child.call("require_loops", 9)
        assert child.call("require_loops", 1) is None
    finally:
        child.close()


def test_a_child_that_ends_by_itself_is_said_with_its_status():
    with pytest.raises(BundleError, match=r"mortal process ended by itself \(exit status 3"):
        ChildProcess("mortal", os._exit, 3)
