"""The GPU's kernel interpreted on the CPU: a program of its own, because Triton reads
TRITON_INTERPRET when it defines a kernel.

    TRITON_INTERPRET=1 python interpreted.py CASE...

prints a JSON object: for each case the largest error of a batch's chunks from the trained module's,
in normalised units, and the chunks' digest. A case is POLICY:K, one of `fused_policies`, by one
program for each observation; POLICY:K:P by P of them that take turns, POLICY:K:P:reverse in the
other order; POLICY:K:P:deaf by such that do not wait. POLICY:K:1:bf16 is with weights of bfloat16,
of a policy whose weights are such numbers; POLICY:K:1:graph as the node of an exported graph.
"""

import functools
import hashlib
import inspect
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from safetensors.torch import save_model
from tests.deploy.backends.fused.fused_policies import (
    POLICIES,
    expected,
    largest_error,
    noises,
    observations,
    random_policy,
)
from triton.runtime import interpreter

from loopdit.datasets.spec import COMMITTED
from loopdit.deploy.backends.fused.gpu_denoise import GpuDenoise
from loopdit.deploy.backends.fused.gpu_form import MATRICES, KernelForm
from loopdit.deploy.backends.fused.triton_kernel import denoise_kernel
from loopdit.deploy.bundle.weights_file import WeightsFile
from loopdit.deploy.export.fused_graph import DOMAIN, export_fused_denoise
from loopdit.policy.looped_dit import Context
from loopdit.policy.looped_policy import MASK, LoopedPolicy

STEPS = 2
_BUILDER: Any = interpreter.interpreter_builder


class TakingTurns:
    """A kernel's programs as threads, one at a time, each for as long as it need not wait.

    The interpreter runs a grid's programs one after the other, so a first one that waits for the
    others would wait for ever. A program waits where it asks an atomic counter twice in a row.
    Turns are taken in the order of the grid, or its reverse: what is not waited for, is not there
    in one of them.
    """

    def __init__(self, function: Callable[..., None], reverse: bool) -> None:
        self._function = function
        self._reverse = reverse
        self._waiting: list[tuple[tuple[int, int, int], dict[str, Any]]] = []
        self._turn = threading.Condition()
        self._alive: list[int] = []
        self._current = 0

    def __call__(self, **arguments: Any) -> None:
        """Called by the interpreter for each program in turn; the last call runs them all."""
        self._waiting.append((_BUILDER.grid_idx, arguments))
        columns, rows, _ = _BUILDER.grid_dim
        if len(self._waiting) < columns * rows:
            return
        programs = self._waiting[::-1] if self._reverse else self._waiting
        self._waiting, failures = [], []
        self._alive, self._current = list(range(len(programs))), 0

        def run(mine: int) -> None:
            place, given = programs[mine]
            try:
                self._await_turn(mine, place)
                self._function(**given)
            except Exception as error:
                failures.append(error)
            finally:
                self._pass_on(mine, ended=True)

        atomic = _BUILDER.create_atomic_rmw

        asked = [False] * len(programs)

        def in_turn(operation: Any, pointer: Any, value: Any, *rest: Any) -> Any:
            mine, asks = self._current, not value.data.any()
            if asks and asked[mine]:
                self._pass_on(mine)
                self._await_turn(mine, programs[mine][0])
            asked[mine] = asks
            return atomic(operation, pointer, value, *rest)

        _BUILDER.create_atomic_rmw = in_turn
        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(programs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _BUILDER.create_atomic_rmw = atomic
        if failures:
            raise failures[0]

    def _await_turn(self, mine: int, place: tuple[int, int, int]) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._current == mine)
        _BUILDER.grid_idx = place

    def _pass_on(self, mine: int, ended: bool = False) -> None:
        with self._turn:
            after = self._alive.index(mine) + 1
            following = self._alive[after % len(self._alive)]
            if ended:
                self._alive.remove(mine)
            self._current = following
            self._turn.notify_all()


def patch_once() -> None:
    """The interpreter patches Triton's language at each call of a function, and by that spends
    most of its time; the first patch is still there."""
    patch = interpreter._patch_lang  # pyright: ignore[reportPrivateUsage]
    scopes: dict[Any, Any] = {}

    def once(function: Any) -> Any:
        module = function.__module__
        if module not in scopes:
            scopes[module] = patch(inspect.unwrap(function))
            scopes[module].restore = lambda: None
        return scopes[module]

    interpreter._patch_lang = once  # pyright: ignore[reportPrivateUsage]


def together(reverse: bool) -> None:
    """From now on the kernel's programs take turns."""
    plain = _kernel().rewrite()
    taking_turns = TakingTurns(plain, reverse)

    @functools.wraps(plain)
    def run(**arguments: Any) -> None:
        taking_turns(**arguments)

    run.__signature__ = inspect.signature(plain)  # pyright: ignore[reportAttributeAccessIssue]
    _kernel().rewritten_fn[_kernel().fn] = run


def alone() -> None:
    """As the interpreter has it."""
    _kernel().rewritten_fn.pop(_kernel().fn, None)


def _kernel() -> Any:
    return denoise_kernel


@torch.inference_mode()
def found(case: str) -> dict[str, Any]:
    name, loops, programs, how = (*case.split(":"), "1", "")[:4]
    policy, dtype = random_policy(*POLICIES[name]), torch.float32
    if how == "bf16":
        dtype = torch.bfloat16
        for block in policy.model.action_stack:
            for matrix in MATRICES:
                weight = getattr(block, matrix).weight
                weight.copy_(weight.to(dtype))
    alone()
    if int(programs) > 1:
        together(reverse=how == "reverse")
    given = {name: torch.from_numpy(value) for name, value in observations(policy).items()}
    noise = torch.from_numpy(noises(policy))
    denoise = GpuDenoise(policy, dtype, "cpu", processors=int(programs) * len(noise))
    assert denoise.form.programs(len(noise), int(programs) * len(noise)) == int(programs)
    prepared = denoise.prepared(len(noise), STEPS)
    if how == "deaf":  # all have come before any has; what they have not written is 0
        prepared.summands.zero_()
        prepared.arrivals.zero_ = lambda: prepared.arrivals.fill_(1 << 20)
    context = policy.encode(given, int(loops))
    if how == "graph":
        made = by_graph(policy, context, given.get(COMMITTED), noise)
    else:
        made = denoise(policy, context, noise, prepared).numpy()
    error = largest_error(policy, made, expected(policy, int(loops), STEPS))
    return {"error": error, "digest": hashlib.sha256(made.tobytes()).hexdigest()}


def by_graph(
    policy: LoopedPolicy, context: Context, committed: torch.Tensor | None, noise: torch.Tensor
) -> np.ndarray:
    """Of ONNX's own reference implementation, whose FusedDenoise is the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "model.safetensors")
        save_model(policy, str(weights))
        loops = len(context.keys) // policy.config.blocks
        path = export_fused_denoise(policy, loops, STEPS, WeightsFile(weights))
        onnx.checker.check_model(str(path))
        model = onnx.load(path)
    told = {MASK: context.mask, COMMITTED: committed}
    given = {"sample": noise, "keys": context.keys, "values": context.values}
    given |= {name: tensor for name in policy.denoise_inputs if (tensor := told[name]) is not None}
    evaluator = ReferenceEvaluator(model, new_ops=[FusedDenoise])
    (actions,) = evaluator.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    return np.asarray(actions)


class FusedDenoise(OpRun):
    """The exported node."""

    op_domain = DOMAIN

    def _run(self, *inputs: np.ndarray, **sizes: int) -> tuple[np.ndarray, np.ndarray]:
        steps, loops = sizes.pop("steps"), sizes.pop("loops")
        form = KernelForm(**sizes)  # pyright: ignore[reportArgumentType] - 0 and 1 for bool
        tensors = [torch.from_numpy(np.array(value, order="C")) for value in inputs]
        batch, tokens = tensors[1].shape[1], tensors[1].shape[3]
        units = form.heads + form.tiles
        chunk, said = torch.empty_like(tensors[0]), torch.empty_like(tensors[0])
        summands = torch.empty(batch, units, form.rows, form.width)
        arrivals = torch.zeros(batch, dtype=torch.int32)
        _kernel()[(1, batch)](
            *tensors,
            *(batch, tokens, loops, steps, chunk, said, summands, arrivals),
            **form.constants,
        )
        return chunk.numpy(), said.numpy()


if __name__ == "__main__":
    patch_once()
    print(json.dumps({case: found(case) for case in sys.argv[1:]}))  # noqa: T201 - what it is for
