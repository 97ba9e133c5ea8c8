import importlib
import os
from pathlib import Path

import pytest
from hypothesis import settings

# The models of the tests are tiny: more threads only wait for each other, by minutes where another
# job holds a core. Set before torch is imported, and inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before any test imports mujoco, which would then want a display.
importlib.import_module("loopdit.envs")

# A first call pays for imports, and a busy machine for others: hypothesis times neither.
settings.register_profile("loopdit", deadline=None)
settings.load_profile("loopdit")

SYSTEM = Path(__file__).parent / "system"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SYSTEM in item.path.parents:
            item.add_marker("system")
    # Files of a single test of minutes, begun last, would leave a core idle: they come first.
    items.sort(key=lambda item: SYSTEM not in item.path.parents)
