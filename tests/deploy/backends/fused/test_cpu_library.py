import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loopdit.deploy.backends.fused.cpu_library import load_library
from loopdit.deploy.backends.registry import KINDS, cpp_compiler
from loopdit.errors import BundleError

COMPILER = cpp_compiler() or ""
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C++ compiler")


@pytest.mark.system
@needs_compiler
def test_it_is_compiled_once_by_one_of_those_that_want_it_and_again_when_damaged(tmp_path: Path):
    with ThreadPoolExecutor(2) as pool:
        loaded = list(pool.map(lambda _: load_library(COMPILER, tmp_path), range(2)))
    (path,) = tmp_path.glob("*.so")
    assert [library.fused_has_bfloat16() for library in loaded] in ([0, 0], [1, 1])
    made = path.stat()
    load_library(COMPILER, tmp_path)
    assert path.stat().st_mtime_ns == made.st_mtime_ns
    assert path.stat().st_ino == made.st_ino
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, "lock"])
    # As after a full disk. In another place, because a library that is mapped must not change.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / path.name).write_bytes(b"\x7fELF")
    assert load_library(COMPILER, elsewhere).fused_has_bfloat16() in (0, 1)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_fails_is_said_in_its_own_words(tmp_path: Path):
    broken = script(tmp_path / "broken++", "echo 'no such option: c++20' >&2; exit 1")
    with pytest.raises(BundleError, match=r"broken\+\+ cannot compile.*no such option.*CXX"):
        load_library(broken, tmp_path / "cache")


def test_another_compiler_makes_another_library(tmp_path: Path):
    says = 'case "$*" in *-dM*) echo "$0";; *) for last; do :; done; echo made > "$last";; esac'
    for name in ("one++", "other++"):
        with pytest.raises(BundleError, match="cannot keep its compiled kernels"):
            load_library(script(tmp_path / name, says), tmp_path / "cache")  # which is no library
    assert len(list((tmp_path / "cache").glob("*.so"))) == 2


def test_a_cache_that_cannot_be_written_is_said_with_the_way_to_name_another(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=r"file.*LOOPDIT_CACHE"):
        load_library(script(tmp_path / "c++", "true"), tmp_path / "file")


def test_a_machine_without_a_compiler_is_told_to_get_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert shutil.which(os.environ["CXX"]) is None
    reason = KINDS["fused"].unavailable()
    assert reason is not None
    assert "C++ compiler" in reason
