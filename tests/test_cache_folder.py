from pathlib import Path

import pytest

from loopdit.cache_folder import cache_folder


def test_things_are_kept_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOOPDIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder("kernels") == Path("/somewhere/loopdit/kernels")
    monkeypatch.setenv("LOOPDIT_CACHE", "/elsewhere")
    assert cache_folder("kernels") == Path("/elsewhere/kernels")
