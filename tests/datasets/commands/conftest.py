import pytest
from tests.datasets.commands.calls import Call, caller


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """call("info", store, "json=true"): one policy-data."""
    return caller(monkeypatch, capsys)
