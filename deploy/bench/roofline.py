"""The matrix products of a chunk, and the time below which no machine of a given speed does them.

Products are those that the torch module computes, by shape, once for encoding and once for a
denoising step. Left out is what a runtime need not compute for each chunk: the embedding of the
diffusion time and the AdaLN modulations, which depend on neither observation nor sample, what an
instruction says, which depends on its words alone, and the heads of the exits before the last.

A product takes at least its operations by the machine's FLOP/s, and at least the bytes of its two
operands by the machine's bandwidth: weights are shared over loops and steps, but no core keeps them
in registers. Its result is not counted, nor are softmax, norms and activations: a floor.

Shapes: B batch, M, K, N of a product (M, K) @ (K, N).
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from loopdit.deploy.bundle.probes import Probes
from loopdit.policy.looped_policy import LoopedPolicy

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Convolution:
    """Settings of a convolution, one for each of its axes."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class Product:
    """One matrix product, batched product or convolution.

    left, right: shapes of the operands. weight: which parameter `right` is, as a number that is
    equal for the same one; None where both are computed.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    weight: int | None
    convolution: Convolution | None = None

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        if self.convolution is None:
            return 2 * math.prod(self.left) * self.right[-1]
        outputs = math.prod(self.output)
        return 2 * outputs * math.prod(self.right[1:])

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the result."""
        if self.convolution is None:
            return (*self.left[:-1], self.right[-1])
        sides = [
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, kernel, stride in zip(
                self.left[2:],
                self.convolution.padding,
                self.right[2:],
                self.convolution.stride,
                strict=True,
            )
        ]
        return (self.left[0], self.right[0], *sides)

    def bytes(self, precision: str) -> int:
        """Of both operands; with int8 weights alone are that small."""
        other = 4 if precision == "int8" else _BYTES[precision]
        right = other if self.weight is None else _BYTES[precision]
        return other * math.prod(self.left) + right * math.prod(self.right)


@dataclass(frozen=True)
class ChunkProducts:
    """Of encoding one batch of observations, and of one denoising step of it."""

    encode: tuple[Product, ...]
    step: tuple[Product, ...]

    def of_chunk(self, steps: int) -> list[tuple[Product, int]]:
        """Each product with how often a whole chunk computes it."""
        return [(one, 1) for one in self.encode] + [(one, steps) for one in self.step]

    def step_weights(self, precision: str) -> int:
        """Bytes of the distinct weights of a step: what a machine reads again and again."""
        shapes = {one.weight: one.right for one in self.step if one.weight is not None}
        return _BYTES[precision] * sum(math.prod(shape) for shape in shapes.values())


@dataclass(frozen=True)
class Speed:
    """What a machine does at most: operations and bytes a second; launch_s: of one kernel on a GPU,
    0 where nothing is launched."""

    flops_per_s: float
    bytes_per_s: float
    launch_s: float = 0.0


@dataclass(frozen=True)
class Floor:
    """Below which no whole chunk is computed, milliseconds.

    products_ms: the sum over products of the longer of operations and bytes. flops_ms, bytes_ms:
    either alone. launches_ms: where each product is a launch of its own.
    """

    products_ms: float
    flops_ms: float
    bytes_ms: float
    launches_ms: float


def floor(products: ChunkProducts, steps: int, precision: str, speed: Speed) -> Floor:
    """The floor of one chunk in `steps` steps."""
    longer = flops_s = bytes_s = 0.0
    launches = 0
    for product, count in products.of_chunk(steps):
        by_flops = count * product.flops / speed.flops_per_s
        by_bytes = count * product.bytes(precision) / speed.bytes_per_s
        flops_s, bytes_s = flops_s + by_flops, bytes_s + by_bytes
        longer += max(by_flops, by_bytes)
        launches += count
    return Floor(1e3 * longer, 1e3 * flops_s, 1e3 * bytes_s, 1e3 * launches * speed.launch_s)


@torch.no_grad()
def chunk_products(policy: LoopedPolicy, probes: Probes, loops: int, batch: int) -> ChunkProducts:
    """What `policy` multiplies for `batch` of the probes at K = `loops`."""
    given, noise = probes.batch(0, batch)
    observation = {name: torch.from_numpy(value) for name, value in given.items()}
    recorder = _Recorder(policy)
    with recorder.recorded(policy.model) as encode:
        context = policy.encode(observation, loops)
    times = torch.zeros(batch)
    with recorder.recorded(policy.model) as step:
        policy.denoise_step(torch.from_numpy(noise), times, times + 0.1, context)
    return ChunkProducts(tuple(encode), tuple(step))


class _Recorder(TorchDispatchMode):
    """Products of everything that is computed while it is entered."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        storages = (p.untyped_storage().data_ptr() for p in policy.parameters())
        self._weights = {pointer: number for number, pointer in enumerate(storages)}
        self._products: list[Product] = []
        self._silent = 0  # how many of the modules that are left out are running

    @contextmanager
    def recorded(self, model: Any) -> Generator[list[Product]]:
        """The list that products are added to; `model` is a LoopedDiT."""
        self._products = found = []
        heads: list[int] = []  # where in `found` each exit's head is

        def enter(module: nn.Module, inputs: Any) -> None:
            self._silent += 1

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self._silent -= 1

        def head(module: nn.Module, inputs: Any, output: Any) -> None:
            heads.append(len(found) - 1)

        left_out: list[nn.Module] = [model.time, *(block.modulation for block in model.stack)]
        left_out += [] if model.instruction is None else [model.instruction]
        hooks = [module.register_forward_pre_hook(enter) for module in left_out]
        hooks += [module.register_forward_hook(leave) for module in left_out]
        hooks.append(model.action_out.register_forward_hook(head))
        try:
            # As products rather than as one kernel, which has no shapes to speak of.
            with sdpa_kernel(SDPBackend.MATH), self:
                yield found
        finally:
            for hook in hooks:
                hook.remove()
        for index in reversed(heads[:-1]):
            del found[index]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch for every operation."""
        if not self._silent:
            self._note(func.overloadpacket, args)
        return func(*args, **(kwargs or {}))

    def _note(self, operation: Any, args: Sequence[Any]) -> None:
        aten = torch.ops.aten
        if operation in (aten.mm, aten.bmm):
            self._add(*args[:2])
        elif operation in (aten.addmm, aten.baddbmm):
            self._add(*args[1:3])
        elif operation is aten.mv:
            self._add(args[0], args[1][:, None])
        elif operation is aten.convolution:
            stride, padding, groups = args[3], args[4], args[8]
            self._add(args[0], args[1], Convolution(tuple(stride), tuple(padding), groups))

    def _add(self, left: Tensor, right: Tensor, convolution: Convolution | None = None) -> None:
        weight = self._weights.get(right.untyped_storage().data_ptr())
        self._products.append(Product(tuple(left.shape), tuple(right.shape), weight, convolution))
