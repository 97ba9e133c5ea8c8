"""All denoising steps as one node of a graph, for runtimes that have our kernel as a plugin.

    denoise_fused_k{K}_s{S}:  sample (B, H, A), keys, values and what else `denoise` takes
                              -> actions (B, H, A) in raw units

The node is FusedDenoise of the domain DOMAIN. Its inputs are those of the kernel, in its order, up
to `visible` (`backends.fused.triton_kernel`): weights included, as transpositions of what is in the
bundle's weights file, which runtimes compute once. Its outputs are `chunk` and `said`. Its
attributes are the kernel's sizes, K and S. What is before and after it is ordinary ONNX.

Shapes as in `onnx_graphs`. Not part of a bundle: no runtime without the plugin can load it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopdit.datasets.spec import COMMITTED
from loopdit.deploy.backends.fused.gpu_chunk import Given, chunk_by
from loopdit.deploy.backends.fused.gpu_form import kernel_form, kernel_tensors
from loopdit.deploy.backends.fused.sampler import modulations, step_schedule
from loopdit.deploy.bundle.weights_file import WeightsFile
from loopdit.deploy.export.onnx_graphs import BATCH_AXIS, example_denoise_inputs, write_graph
from loopdit.policy.looped_policy import MASK, LoopedPolicy

DOMAIN, NODE, VERSION = "loopdit", "FusedDenoise", 1


def export_fused_denoise(
    policy: LoopedPolicy, loops: int, steps: int, weights: WeightsFile
) -> Path:
    """Write the graph of K = `loops` and so many steps beside the weights; returns its path.

    Raises BundleError for a policy that the kernel cannot compute.
    """
    module = _FusedDenoise(policy, loops, steps)
    sample, (keys, values), extra = example_denoise_inputs(policy, loops)
    first, kept = {0: BATCH_AXIS}, {1: BATCH_AXIS}
    rest = tuple(first for _ in extra)
    return write_graph(
        module,
        (sample, keys, values, *extra),
        inputs=["sample", "keys", "values", *policy.denoise_inputs],
        outputs=["actions"],
        batch_axes=(first, kept, kept, rest) if rest else (first, kept, kept),
        path=weights.path.parent / f"denoise_fused_k{loops}_s{steps}.onnx",
        weights=weights,
    )


class _FusedDenoise(nn.Module):
    schedule: Tensor
    times: Tensor

    def __init__(self, policy: LoopedPolicy, loops: int, steps: int) -> None:
        super().__init__()
        self.policy = policy
        self.attributes: dict[str, Any] = {
            **{name: int(value) for name, value in asdict(kernel_form(policy)).items()},
            **{"loops": loops, "steps": steps},
        }
        schedule, times = step_schedule(policy, steps)
        self.register_buffer("schedule", schedule, persistent=False)
        self.register_buffer("times", times, persistent=False)

    def forward(self, sample: Tensor, keys: Tensor, values: Tensor, *told: Tensor) -> Tensor:
        policy = self.policy
        by_name = dict(zip(policy.denoise_inputs, told, strict=True))
        context = policy.context(keys, values, by_name.get(MASK), by_name.get(COMMITTED))
        return chunk_by(self._node, policy, context, sample)

    def _node(self, given: Given) -> tuple[Tensor, Tensor]:
        weights = kernel_tensors(self.policy, torch.float32)
        chunk, said = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{NODE}",
            (*given, self.schedule, modulations(self.policy, self.times), *weights.values()),
            self.attributes,
            dtypes=(torch.float32, torch.float32),
            shapes=(given.noise.shape, given.noise.shape),
            version=VERSION,
        )
        return chunk, said
