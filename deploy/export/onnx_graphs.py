"""Trace a policy into ONNX: `encode` and `denoise` for each K, all reading one weights file.

Shapes: B batch (free), H horizon, A action dim, L = K * blocks, N observation tokens, d head size.
    encode_k{K}:  what the policy is given (B, ...), raw units -> keys, values (L, B, heads, N, d)
    denoise_k{K}: sample (B, H, A), t (B,), dt (B,), keys, values -> next_sample (B, H, A) in
                  normalised units, actions (B, H, A) in raw ones, clipped to the spec's limits

`encode_loop` and `denoise_loop` are the same with one input more, `loops` () int64, which is K: an
ONNX `Loop` of one pass, for every K that was trained. The unrolled ones are what runtimes optimise
across passes, and what a CUDA graph can hold.

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

import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn

from loopdit.datasets.spec import COMMITTED
from loopdit.deploy.bundle.manifest import LOOPS_INPUT, graph_name
from loopdit.deploy.bundle.weights_file import WeightsFile
from loopdit.policy.counted_loops import encode_counted, predict_counted
from loopdit.policy.looped_dit import Context
from loopdit.policy.looped_policy import MASK, LoopedPolicy

OPSET = 20
BATCH_AXIS, _DEPTH = "batch", "depth"  # names of free axes
# Constants that are no weights (shapes, scalars, a table of frequencies) stay inside a graph.
_MAX_INLINE_BYTES = 64 * 1024


class _Encode(nn.Module):
    """K is `loops`, or the last of the tensors."""

    def __init__(self, policy: LoopedPolicy, loops: int | None) -> None:
        super().__init__()
        self.policy = policy
        self.loops = loops
        self.names = [tensor.name for tensor in policy.encode_inputs]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        context = self._context(*tensors)
        made = (context.keys, context.values)
        return made if context.mask is None else (*made, context.mask)

    def _context(self, *tensors: Tensor) -> Context:
        observation = dict(zip(self.names, tensors, strict=False))
        if self.loops is not None:
            return self.policy.encode(observation, self.loops)
        return encode_counted(self.policy.model, self.policy.normalized(observation), tensors[-1])


class _Denoise(nn.Module):
    """K is what the keys are of, or where it is `counted` the last of the tensors."""

    def __init__(self, policy: LoopedPolicy, counted: bool) -> None:
        super().__init__()
        self.policy = policy
        self.counted = counted

    def forward(
        self, sample: Tensor, t: Tensor, dt: Tensor, keys: Tensor, values: Tensor, *told: Tensor
    ) -> tuple[Tensor, Tensor]:
        policy = self.policy
        by_name = dict(zip(policy.denoise_inputs, told, strict=False))
        context = policy.context(keys, values, by_name.get(MASK), by_name.get(COMMITTED))

        def counted(sample: Tensor, times: Tensor) -> Tensor:
            return predict_counted(policy.model, sample, times, context, told[-1])

        after = policy.denoise_step(sample, t, dt, context, counted if self.counted else None)
        return after, policy.to_actions(after)


def export_encode(policy: LoopedPolicy, loops: int | None, weights: WeightsFile) -> Path:
    """Write the graph of K = `loops`, or for None that of any K, beside the weights; returns its
    path."""
    example = _example_observation(policy)
    counted = [] if loops is not None else [_example_loops(policy)]
    return write_graph(
        _Encode(policy, loops),
        (*example.values(), *counted),
        inputs=[*example, *_counted_name(loops)],
        outputs=["keys", "values", *(name for name in policy.denoise_inputs if name == MASK)],
        # One tuple, because forward takes the tensors as *args.
        batch_axes=((*({0: BATCH_AXIS} for _ in example), *({} for _ in counted)),),
        path=weights.path.parent / graph_name("encode", loops),
        weights=weights,
    )


def export_denoise(policy: LoopedPolicy, loops: int | None, weights: WeightsFile) -> Path:
    """Like `export_encode`."""
    counted = [] if loops is not None else [_example_loops(policy)]
    sample, kept, extra = example_denoise_inputs(policy, loops)
    batch = len(sample)
    first, kept_axes = {0: BATCH_AXIS}, {1: BATCH_AXIS} | ({0: _DEPTH} if counted else {})
    axes: tuple[Any, ...] = (first, first, first, kept_axes, kept_axes)
    rest = (*(first for _ in extra), *({} for _ in counted))
    return write_graph(
        _Denoise(policy, loops is None),
        (
            *(sample, torch.zeros(batch), torch.full((batch,), 0.1), *kept),
            *(*extra, *counted),
        ),
        inputs=[
            *("sample", "t", "dt", "keys", "values"),
            *(*policy.denoise_inputs, *_counted_name(loops)),
        ],
        outputs=["next_sample", "actions"],
        batch_axes=(*axes, rest) if rest else axes,
        path=weights.path.parent / graph_name("denoise", loops),
        weights=weights,
    )


def example_denoise_inputs(
    policy: LoopedPolicy, loops: int | None
) -> tuple[Tensor, tuple[Tensor, Tensor], list[Tensor]]:
    """A sample, keys and values, and what `denoise_inputs` names, for a batch of 2."""
    with torch.inference_mode():
        context = policy.encode(
            _example_observation(policy), policy.max_loops if loops is None else loops
        )
    batch, width = context.keys.shape[1], policy.spec.action.shape[0]
    told = {
        MASK: context.mask,
        COMMITTED: torch.zeros(batch, policy.config.prefix, width + 1),
    }
    extra = [tensor.clone() for n in policy.denoise_inputs if (tensor := told[n]) is not None]
    sample = torch.zeros(batch, policy.horizon, width)
    return sample, (context.keys.clone(), context.values.clone()), extra


def _example_loops(policy: LoopedPolicy) -> Tensor:
    return torch.tensor(policy.max_loops)


def _counted_name(loops: int | None) -> list[str]:
    return [LOOPS_INPUT] if loops is None else []


def _example_observation(policy: LoopedPolicy) -> dict[str, Tensor]:
    """Zeros for a batch of 2: a batch of 1 would be traced as the constant 1."""
    return {
        tensor.name: torch.zeros((2, *tensor.shape), dtype=getattr(torch, tensor.dtype))
        for tensor in policy.encode_inputs
    }


def write_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch_axes: tuple[Any, ...],
    path: Path,
    weights: WeightsFile,
) -> Path:
    """Trace a module into the graph at `path`, all of whose weights are in the file beside it.

    batch_axes: torch's dynamic shapes, by the names of the free axes.
    """
    # A free batch needs the model to say x.shape[0]: len(x) is a plain 2 to the exporter, which
    # then traces all of it a second time, by another and slower way.
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
    _name_free_axes(model)
    inline = weights.share(model)
    if inline > _MAX_INLINE_BYTES:
        raise RuntimeError(
            f"{inline} bytes of a graph's constants are not in {weights.path.name}: a weight was "
            f"folded, or is missing from the policy's state."
        )
    onnx_ir.save(model, path)
    return path


def _name_free_axes(model: onnx_ir.Model) -> None:
    """The exporter calls how many keys there are for any K by a number of its own."""
    for value in model.graph.outputs:
        if value.shape is not None and str(value.shape[0]).startswith("u"):
            value.shape = onnx_ir.Shape([_DEPTH, *value.shape[1:]])


def _reads_no_weight(node: onnx_ir.Node) -> bool | None:
    """False keeps the node; None leaves the optimizer to its own rules."""
    weight = any(value is not None and value.is_initializer() for value in node.inputs)
    return False if weight else None


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
