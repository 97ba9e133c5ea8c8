import pytest
from tests.policy.graft.squares import squares_store


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> str:
    return squares_store(tmp_path_factory.mktemp("data") / "squares.zarr")
