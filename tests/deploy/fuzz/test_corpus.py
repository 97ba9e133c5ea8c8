"""What fuzzing found and covered, again at each test: see `fuzz.py`."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.deploy.fuzz.targets import (
    CORPUS,
    TARGETS,
    from_frames,
    fuzz_decode,
    fuzz_dispatcher,
    to_frames,
)

INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_every_target_has_a_corpus():
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name[:12]}")
def test_an_input_of_the_corpus_breaks_nothing(path: Path):
    TARGETS[path.parent.name](path.read_bytes())


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_frames_are_read_as_they_were_written(frames: list[bytes]):
    assert to_frames(from_frames(frames)) == frames


@given(st.binary(max_size=300))
def test_bytes_at_random_break_nothing(data: bytes):
    fuzz_decode(data)
    fuzz_dispatcher(data)
