"""What is left, and said, where a new data set cannot be finished."""

import errno
import os
from pathlib import Path

import pytest

from loopdit.datasets.formats.new_target import new_target
from loopdit.errors import StoreError


def fail(code: int) -> StoreError:
    """As a store's writer tells of an OSError."""
    error = StoreError(f"cannot write to .x.unfinished: {os.strerror(code)}; go on with it")
    error.__cause__ = OSError(code, os.strerror(code))
    return error


def test_a_full_disk_is_told_of_the_name_that_was_asked_for_and_leaves_nothing(tmp_path: Path):
    def fill_the_disk(aside: Path) -> None:
        aside.write_text("x")
        raise fail(errno.ENOSPC)

    def write_both() -> None:
        with new_target(tmp_path / "parts") as folder:
            folder.mkdir()
            with new_target(folder / "train") as aside:
                fill_the_disk(aside)

    with pytest.raises(StoreError, match=r"parts: No space left on device. Nothing was left"):
        write_both()
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_with_a_source_is_told_of_the_source(tmp_path: Path):
    with (
        pytest.raises(StoreError, match=r"^cannot write to .x.unfinished: Permission denied"),
        new_target(tmp_path / "parts"),
    ):
        raise fail(errno.EACCES)
    assert list(tmp_path.iterdir()) == []
