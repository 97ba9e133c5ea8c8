"""What builds engines without a GPU, and a bundle with every input that a policy can have."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console
from tests.policy.policies import SMALL, small_spec

from loopdit.deploy.backends.tensorrt.library import TENSORRT_RTX, Library, load_library
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.export.command import ExportConfig, export_bundle
from loopdit.policy.checkpoint import save_checkpoint
from loopdit.policy.looped_policy import LoopedPolicy


@pytest.fixture(scope="session")
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'loopdit[tensorrt-rtx]'")
    return load_library(TENSORRT_RTX)


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Told in words, two cameras that may be missing, two actions in flight; K = 1 alone, in
    three precisions."""
    told = replace(SMALL, instruction="words", instructions=["lift", "stack"])
    config = replace(told, in_flight=2, optional_cameras=True, max_loops=1)
    torch.manual_seed(0)
    policy = LoopedPolicy(small_spec(cameras=2), config).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("everything")
    save_checkpoint(folder / "checkpoint", policy, {})
    export_bundle(
        ExportConfig(
            checkpoint=str(folder / "checkpoint"),
            out=str(folder / "bundle"),
            steps=3,
            observations=4,
            repetitions=0,
            loop_graphs=False,
            precision=["fp16", "bf16"],
            # Of weights that nobody trained, so what rounding does to them says nothing.
            tolerance_fp16=10.0,
            tolerance_bf16=10.0,
        ),
        Console(quiet=True),
    )
    return Bundle.open(folder / "bundle")
