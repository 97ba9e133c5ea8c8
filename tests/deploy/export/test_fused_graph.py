"""The graph whose denoising is one node. Its numbers: `backends/fused/test_gpu_kernel.py`."""

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from tests.policy.policies import SMALL, small_spec

from loopdit.deploy.bundle.bundle import default_bundle
from loopdit.deploy.bundle.manifest import WEIGHTS
from loopdit.deploy.bundle.weights_file import WeightsFile
from loopdit.deploy.export.fused_graph import DOMAIN, NODE, export_fused_denoise
from loopdit.errors import BundleError
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.looped_policy import LoopedPolicy

KERNEL_INPUTS = 22


@pytest.fixture
def weights(tmp_path: Path) -> WeightsFile:
    return WeightsFile(Path(shutil.copy(default_bundle() / WEIGHTS, tmp_path)))


def test_all_steps_are_one_node_that_says_k_and_steps_and_reads_the_bundles_weights(
    weights: WeightsFile,
):
    path = export_fused_denoise(load_policy(default_bundle()), 3, 10, weights)
    assert path.name == "denoise_fused_k3_s10.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    (node,) = (node for node in graph.node if node.domain == DOMAIN)
    assert node.op_type == NODE
    assert {attribute.name: attribute.i for attribute in node.attribute} == {
        **{"width": 192, "hidden": 512, "blocks": 1, "rows": 4, "group": 4, "actions": 7},
        **{"masked": 0, "committed": 0, "injected": 0, "loops": 3, "steps": 10},
    }
    assert len(node.input) == KERNEL_INPUTS
    assert [value.name for value in graph.input] == ["sample", "keys", "values"]
    assert [value.name for value in graph.output] == ["actions"]
    assert path.stat().st_size < 32 * 1024  # of 4 MB of weights, none
    locations = {entry.value for t in graph.initializer for entry in t.external_data[:1]}
    assert locations == {WEIGHTS}


def test_a_policy_that_the_kernel_cannot_compute_has_no_such_graph(weights: WeightsFile):
    policy = LoopedPolicy(small_spec(), replace(SMALL, topology="dense"))
    with pytest.raises(BundleError, match="topology=dense"):
        export_fused_denoise(policy, 1, 2, weights)
