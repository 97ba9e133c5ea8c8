"""A real, tiny policy, its checkpoint and its bundle: exported once for all, never changed. And a
server that echoes."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tests.deploy.echo_policy import EchoPolicy
from tests.deploy.raw_client import ANY_PORT

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.deploy.bundle.bundle import Bundle, file_entry
from loopdit.deploy.bundle.manifest import FP32, MANIFEST, PRECISIONS, WEIGHTS
from loopdit.deploy.bundle.writer import write_manifest
from loopdit.deploy.export.command import ExportConfig, export_bundle
from loopdit.deploy.export.graph_precision import write_reduced
from loopdit.deploy.serving.server import PolicyServer
from loopdit.policy.checkpoint import save_checkpoint
from loopdit.policy.depth_calibration import Calibration, save_calibration
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy


@pytest.fixture
def echo() -> Iterator[PolicyServer]:
    with PolicyServer(EchoPolicy(), ANY_PORT) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_spec() -> PolicySpec:
    return PolicySpec(
        observations=(
            TensorSpec("images.front", (32, 32, 3), "uint8"),
            TensorSpec("proprio", (2,), "float32", ("shoulder", "gripper"), ("rad", "m")),
        ),
        action=TensorSpec("action", (2,), "float32", low=(-50, -50), high=(50, 50)),
        action_frame="base of the robot",
        control_period_s=0.1,
    )


@pytest.fixture(scope="session")
def tiny_policy(tiny_spec: PolicySpec) -> LoopedPolicy:
    """Two loops, and no two of its weights alike: what is mixed up in an export shows."""
    policy = LoopedPolicy(tiny_spec, LoopedDiTConfig(width=32, max_loops=2, action_horizon=4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        policy.normalizer.get_buffer("proprio_mean").copy_(torch.tensor([0.3, -0.7]))
        policy.normalizer.get_buffer("action_mean").copy_(torch.tensor([0.5, -0.2]))
        policy.normalizer.get_buffer("action_spread").copy_(torch.tensor([2.0, 0.1]))
    return policy.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_policy: LoopedPolicy) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    save_checkpoint(folder, tiny_policy, {"trained": "never", "seed": 0})
    weights = file_entry(folder / WEIGHTS).sha256
    settled = Calibration("chunk", 0.25, 1.5, (0.5, 0.5), 10, "mean_loops=1.5", weights)
    save_calibration(folder, settled)
    return folder


@pytest.fixture(scope="session")
def exported(tiny_checkpoint: Path) -> tuple[Path, str]:
    """The bundle of the tiny policy at K = 1 and 2, and what its export printed."""
    out, printed = tiny_checkpoint.parent / "bundle", io.StringIO()
    config = ExportConfig(
        checkpoint=str(tiny_checkpoint), out=str(out), steps=3, temperature=0.25, repetitions=5
    )
    export_bundle(config, Console(file=printed, width=120))
    return out, printed.getvalue()


@pytest.fixture(scope="session")
def tiny_bundle(exported: tuple[Path, str]) -> Bundle:
    return Bundle.open(exported[0])


@pytest.fixture(scope="session")
def reduced_bundle(exported: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with graphs of every precision."""
    folder = Path(shutil.copytree(exported[0], tmp_path_factory.mktemp("reduced") / "bundle"))
    manifest = Bundle.open(folder).manifest
    for precision in PRECISIONS[1:]:
        write_reduced(folder, manifest.graph_names(FP32), precision)
    files = {path.name: file_entry(path) for path in folder.iterdir() if path.name != MANIFEST}
    write_manifest(folder, replace(manifest, precisions=PRECISIONS, files=files))
    return Bundle.open(folder)


@pytest.fixture
def bundle_copy(exported: tuple[Path, str], tmp_path: Path) -> Path:
    """One's own copy, to damage."""
    return Path(shutil.copytree(exported[0], tmp_path / "bundle"))
