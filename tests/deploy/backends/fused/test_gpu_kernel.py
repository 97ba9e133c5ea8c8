"""The GPU's kernel without a GPU: interpreted for its numbers, compiled for what it takes."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.backends.fused.fused_policies import random_policy
from tests.policy.policies import SMALL, small_spec

from loopdit.deploy.backends.fused.gpu_form import KernelForm, kernel_form
from loopdit.deploy.bundle.bundle import default_bundle
from loopdit.errors import BundleError
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.objectives.objective import ObjectiveConfig

ROOT = Path(__file__).resolve().parents[4]
EXACT = (
    *("many tokens:2", "narrow tokens:1", "injection:3", "everything:2"),
    *("eps:2", "regression:2", "settled gripper in flight:2", "everything:1:1:bf16"),
    *("everything:2:6", "everything:2:3:reverse", "everything:1:1:graph"),
)
DEAF = "plain:2:3:deaf"


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    """By case, the largest error and the chunks' digest; see `interpreted.py`."""
    pytest.importorskip(
        "triton", reason="triton is not installed: pip install 'loopdit[fused-cuda]'"
    )
    program = Path(__file__).with_name("interpreted.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), *EXACT, DEAF],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.system
@pytest.mark.parametrize("case", EXACT)
def test_the_kernel_acts_as_the_trained_policy_does(interpreted: dict[str, Any], case: str):
    assert interpreted[case]["error"] < 1e-5


@pytest.mark.system
def test_how_many_programs_share_the_work_changes_no_bit(interpreted: dict[str, Any]):
    shared = ("everything:2", "everything:2:6", "everything:2:3:reverse")
    assert len({interpreted[case]["digest"] for case in shared}) == 1


@pytest.mark.system
def test_programs_that_do_not_wait_for_each_other_would_be_found_out(interpreted: dict[str, Any]):
    assert not interpreted[DEAF]["error"] < 1e-3


@pytest.mark.system
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_for_an_h200_the_shipped_policy_spills_nothing_and_multiplies_in_float32(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip(
        "triton", reason="triton is not installed: pip install 'loopdit[fused-cuda]'"
    )
    from loopdit.deploy.backends.fused.gpu_compile import compile_denoise

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    form = kernel_form(load_policy(default_bundle()))
    compiled = compile_denoise(form, dtype, (9, 0))
    assert compiled.stack_bytes == 0
    assert compiled.threads == 256
    assert compiled.threads * compiled.registers <= 65536  # what a multiprocessor has
    assert compiled.shared_bytes <= 48 * 1024  # what a launch gets unasked
    assert compiled.cubin.startswith(b"\x7fELF")
    ptx = compiled.ptx
    assert f".entry {compiled.name}(" in ptx
    assert ".target sm_90" in ptx
    assert not re.search(r"\b(w?g?mma|tf32)", ptx)
    # Two meetings a block, each with its own arrival.
    assert len(re.findall(r"atom\.global\.gpu\.release\.add", ptx)) == 2
    assert "ld.global.gpu.acquire" in ptx
    passed = re.findall(r"\.param \.(u\d+)", ptx[: ptx.index(")")])
    assert passed == ["u64"] * 22 + ["u32"] * 4 + ["u64"] * 4 + ["u64"] * 2


@pytest.mark.parametrize(
    ("batch", "processors", "programs"),
    [
        (1, 132, 16),  # one for each tile of the hidden layer
        (8, 132, 16),
        (9, 132, 8),  # 14 would fit, and would need as many rounds as 8
        (64, 132, 2),
        (66, 132, 2),
        (67, 132, 1),
        (500, 132, 1),
        (1, 7, 6),
        (1, 1, 1),
    ],
)
def test_programs_that_meet_have_a_multiprocessor_each(batch: int, processors: int, programs: int):
    form = KernelForm(192, 512, 1, 4, 4, 7, masked=False, committed=False, injected=False)
    assert form.programs(batch, processors) == programs
    assert programs == 1 or batch * programs <= processors


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (replace(SMALL, topology="dense"), "no kernel for policy.topology=dense"),
        (replace(SMALL, width=288), "no kernel for policy.width=288, above 256"),
        (replace(SMALL, action_horizon=40), "no kernel for 20 action tokens, above 16"),
        (replace(SMALL, objective=ObjectiveConfig("flow", sampler="heun")), "sampler heun of flow"),
    ],
)
def test_a_policy_that_the_kernel_cannot_compute_is_refused_with_another_back_end(
    config: LoopedDiTConfig, said: str
):
    with pytest.raises(BundleError, match=rf"{said}.*Use backend="):
        kernel_form(random_policy(small_spec(), config))
