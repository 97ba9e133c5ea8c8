"""What a robot's process loads: the bare install, quickly."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "hydra", "omegaconf", "mujoco", "gymnasium", "zarr", "onnxruntime", "rich"}
SPEC = "loopdit.datasets.spec"
CLIENT = "loopdit.deploy.client"


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh process has loaded after `statement`."""
    script = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", [SPEC, CLIENT, "loopdit.deploy.robot.chunk_player", "loopdit.deploy.robot.committed"]
)
def test_the_robots_side_loads_nothing_beyond_the_bare_install(module: str):
    third_party = {"numpy", "zmq", "msgspec"}
    loaded = modules_after(f"import {module}")
    assert "loopdit" in loaded
    assert loaded & HEAVY == set()
    # Whatever else is neither Python's nor the bare install's came in by a back door.
    before = modules_after(f"import {', '.join(sorted(third_party))}")
    assert loaded - before - sys.stdlib_module_names - third_party == {"loopdit"}


def test_the_spec_needs_numpy_alone():
    assert modules_after(f"import {SPEC}") & {"zmq", "msgspec"} == set()


def test_importing_an_environment_by_name_loads_no_torch_and_no_simulator_yet():
    loaded = modules_after("import loopdit.envs.registry")
    assert loaded & {"torch", "mujoco"} == set()
