"""Trace a policy into ONNX: `encode` and `denoise` for each K, all reading one weights file.

Shapes: B batch (free), H horizon, A action dim, L = K * blocks, N observation tokens, d head size.
    encode_k{K}:  what the policy is given (B, ...), raw units -> keys, values (L, B, heads, N, d)
    denoise_k{K}: sample (B, H, A), t (B,), dt (B,), keys, values -> next_sample (B, H, A) in
                  normalised units, actions (B, H, A) in raw ones, clipped to the spec's limits

Where cameras may be missing, `encode` also makes a mask (B, N) that `denoise` takes; where a chunk
begins with the actions in flight, `denoise` takes those, raw, and `encode` does not. A back end
goes by the names of a graph's inputs.

A loop's weights are one initializer however often it is applied, and every initializer that is a
weight points at its bytes in `model.safetensors`. For that the optimizer must fold everything but
weights: a folded transpose is another copy (measured for K = 1..4 with 4.1 MB of weights: graphs of
5.5 MB when folded, 0.2 MB so). Runtimes fold them anyway when they load. Graph slimmers un-share
loops: never run one on these files.
"""

import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn

from loopdit.datasets.spec import COMMITTED
from loopdit.deploy.manifest import graph_name
from loopdit.deploy.weights_file import WeightsFile
from loopdit.policy.looped_policy import MASK, LoopedPolicy

OPSET = 20
_BATCH = "batch"
# Constants that are no weights (shapes, scalars, a table of frequencies) stay inside a graph.
_MAX_INLINE_BYTES = 64 * 1024


class _Encode(nn.Module):
    def __init__(self, policy: LoopedPolicy, loops: int) -> None:
        super().__init__()
        self.policy = policy
        self.loops = loops
        self.names = [tensor.name for tensor in policy.encode_inputs]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        context = self.policy.encode(dict(zip(self.names, tensors, strict=True)), self.loops)
        made = (context.keys, context.values)
        return made if context.mask is None else (*made, context.mask)


class _Denoise(nn.Module):
    def __init__(self, policy: LoopedPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self, sample: Tensor, t: Tensor, dt: Tensor, keys: Tensor, values: Tensor, *told: Tensor
    ) -> tuple[Tensor, Tensor]:
        by_name = dict(zip(self.policy.denoise_inputs, told, strict=True))
        context = self.policy.context(keys, values, by_name.get(MASK), by_name.get(COMMITTED))
        after = self.policy.denoise_step(sample, t, dt, context)
        return after, self.policy.to_actions(after)


def export_encode(policy: LoopedPolicy, loops: int, weights: WeightsFile) -> Path:
    """Write `encode_k{loops}.onnx` beside the weights; returns its path."""
    example = _example_observation(policy)
    return _export(
        _Encode(policy, loops),
        tuple(example.values()),
        inputs=list(example),
        outputs=["keys", "values", *(name for name in policy.denoise_inputs if name == MASK)],
        # One tuple, because forward takes the tensors as *args.
        batch_axes=(tuple({0: _BATCH} for _ in example),),
        path=weights.path.parent / graph_name("encode", loops),
        weights=weights,
    )


def export_denoise(policy: LoopedPolicy, loops: int, weights: WeightsFile) -> Path:
    """Write `denoise_k{loops}.onnx` beside the weights; returns its path."""
    with torch.inference_mode():
        context = policy.encode(_example_observation(policy), loops)
    batch, width = context.keys.shape[1], policy.spec.action.shape[0]
    told = {
        MASK: context.mask,
        COMMITTED: torch.zeros(batch, policy.config.prefix, width + 1),
    }
    extra = [told[name] for name in policy.denoise_inputs]
    sample = torch.zeros(batch, policy.horizon, width)
    first, second = {0: _BATCH}, {1: _BATCH}
    kept = (context.keys.clone(), context.values.clone())
    axes: tuple[Any, ...] = (first, first, first, second, second)
    return _export(
        _Denoise(policy),
        (
            *(sample, torch.zeros(batch), torch.full((batch,), 0.1), *kept),
            *(tensor.clone() for tensor in extra if tensor is not None),
        ),
        inputs=["sample", "t", "dt", "keys", "values", *policy.denoise_inputs],
        outputs=["next_sample", "actions"],
        batch_axes=(*axes, tuple(first for _ in extra)) if extra else axes,
        path=weights.path.parent / graph_name("denoise", loops),
        weights=weights,
    )


def _example_observation(policy: LoopedPolicy) -> dict[str, Tensor]:
    """Zeros for a batch of 2: a batch of 1 would be traced as the constant 1."""
    return {
        tensor.name: torch.zeros((2, *tensor.shape), dtype=getattr(torch, tensor.dtype))
        for tensor in policy.encode_inputs
    }


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch_axes: tuple[Any, ...],
    path: Path,
    weights: WeightsFile,
) -> Path:
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=batch_axes,
            external_data=False,
            optimize=False,  # its own optimizer would fold weights
            verbose=False,
        )
        assert program is not None  # it is None only when exporting to a file
        model = program.model
        optimize_ir(model, should_fold=_reads_no_weight)
    # Stack traces: three quarters of the file, with paths of this machine.
    ClearMetadataAndDocStringPass()(model)
    _share_weights(model, weights)
    onnx_ir.save(model, path)
    return path


def _reads_no_weight(node: onnx_ir.Node) -> bool | None:
    """False keeps the node; None leaves the optimizer to its own rules."""
    weight = any(value is not None and value.is_initializer() for value in node.inputs)
    return False if weight else None


def _share_weights(model: onnx_ir.Model, weights: WeightsFile) -> None:
    """Make every initializer that is in the weights file a reference to it."""
    inline = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        assert tensor is not None
        array = tensor.numpy()
        stored = weights.find(array) if array.dtype == np.float32 and array.ndim else None
        if stored is None:
            inline += array.nbytes
            continue
        value.const_value = onnx_ir.ExternalTensor(
            weights.path.name,
            stored.offset,
            stored.length,
            tensor.dtype,
            shape=onnx_ir.Shape(array.shape),
            name=value.name or stored.name,
            base_dir=weights.path.parent,
        )
    if inline > _MAX_INLINE_BYTES:
        raise RuntimeError(
            f"{inline} bytes of a graph's constants are not in {weights.path.name}: a weight was "
            f"folded, or is missing from the policy's state."
        )


@contextmanager
def _quiet() -> Generator[None]:
    """The exporter warns of its own internals and of packages we do not use."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
