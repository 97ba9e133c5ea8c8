"""The matrix products of a chunk alone, timed; and how fast this machine multiplies and reads.

What a runtime adds to its products is what an engineer can save, so they are run by themselves: at
the same shapes, with weights that are shared over loops as in the policy, by whichever of the
runtimes here is fastest. ONNX Runtime and OpenVINO get one graph of nothing but products for
encoding and one for a denoising step, so that nobody waits for Python between two products.

Lives in a child process, beside the back ends that it is compared with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from loopdit.deploy.backends import DEFAULT_THREADS
from loopdit.deploy.bench.roofline import ChunkProducts, Convolution, Product, Speed, chunk_products
from loopdit.deploy.bench.timed_backend import Workload
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.policy.checkpoint import load_policy

Run = Callable[[], object]
Make = Callable[[Sequence[Product]], Run]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16"}
_SIDES = (256, 512)  # of the square products that show how fast a machine multiplies
_READS = 64  # how often memory is read to see how fast
_TRIES = 5  # the best of which counts


@dataclass(frozen=True)
class _Runner:
    """Both parts of a chunk by one runtime."""

    encode: Run
    step: Run

    def chunk_ms(self, steps: int) -> tuple[float, float]:
        """Milliseconds of everything that a chunk multiplies: on the wall, and on a core."""
        cpu, began = process_time(), perf_counter()
        self.encode()
        for _ in range(steps):
            self.step()
        return 1e3 * (perf_counter() - began), 1e3 * (process_time() - cpu)


class TimedProducts:
    """See the module. `device` is "cpu" or "cuda"."""

    def __init__(self, workload: Workload, device: str, precision: str) -> None:
        self.threads = workload.threads or DEFAULT_THREADS
        torch.set_num_threads(self.threads)
        self._workload = workload
        self._policy = load_policy(Bundle.open(workload.bundle).path)
        self._device = device
        self._precision = precision
        self._products: dict[tuple[int, int], ChunkProducts] = {}
        self._runners: dict[tuple[int, int], _Runner] = {}
        self._best: str | None = None  # the runtime, chosen at the first work and kept
        self._squares: list[tuple[int, Run]] = []  # operations, and the product that has them

    def products(self, loops: int, batch: int) -> ChunkProducts:
        """What a chunk multiplies."""
        key = (loops, batch)
        if key not in self._products:
            self._products[key] = chunk_products(self._policy, self._workload.probes, loops, batch)
        return self._products[key]

    def runtime(self) -> str:
        """Which runtime multiplied fastest."""
        return self._best or "none"

    def time(
        self, loops: int, steps: int, batch: int, repetitions: int
    ) -> tuple[np.ndarray, float]:
        """Milliseconds (repetitions, COLUMNS) of the products of one chunk, after one untimed."""
        runner = self._runner(loops, batch)
        runner.chunk_ms(steps)
        return np.array([runner.chunk_ms(steps) for _ in range(repetitions)]), float("nan")

    def speed(self, loops: int, batch: int) -> Speed:
        """As fast as this machine was seen to multiply and to read, in tens of milliseconds.

        Multiplying: square products in the precision. Reading: over and over as many bytes as the
        distinct weights of a denoising step have, so at the level of cache where those stay.
        """
        products = self.products(loops, batch)
        flops = max(
            flops / min(self._seconds(run) for _ in range(_TRIES)) for flops, run in self._made()
        )
        launch_s = self._launch_s() if self._device == "cuda" else 0.0
        return Speed(flops, self._bandwidth(products.step_weights(self._precision)), launch_s)

    def _made(self) -> list[tuple[int, Run]]:
        if not self._squares:
            squares = [Product((side, side), (side, side), 0) for side in _SIDES]
            self._squares = [(p.flops, make([p])) for p in squares for _, make in self._runtimes()]
            for _, run in self._squares:
                run()
        return self._squares

    def _bandwidth(self, size: int) -> float:
        """Bytes a second: the fastest of a sum, a dot product and a matrix by a vector."""
        count = max(size // 4, 1024) // 128 * 128
        values = torch.ones(count, device=self._device)
        halves = values[: count // 2], values[count // 2 :]
        matrix, vector = values.view(128, -1), torch.ones(count // 128, device=self._device)

        def again(read: Run) -> Run:
            def run() -> None:
                for _ in range(_READS):
                    read()

            return run

        reads: list[Run] = [
            values.sum,
            lambda: torch.dot(*halves),
            lambda: torch.mv(matrix, vector),
        ]
        runs = [again(read) for read in reads]
        return max(
            4 * count * _READS / min(self._seconds(run) for _ in range(_TRIES)) for run in runs
        )

    def _launch_s(self) -> float:
        one = torch.ones(1, device=self._device)

        def launches() -> None:
            for _ in range(_READS):
                one.add_(1)

        return min(self._seconds(launches) for _ in range(_TRIES)) / _READS

    def _seconds(self, run: Run) -> float:
        began = perf_counter()
        run()
        if self._device == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - began

    def _runner(self, loops: int, batch: int) -> _Runner:
        key = (loops, batch)
        if key not in self._runners:
            products = self.products(loops, batch)
            found = {
                name: _Runner(make(products.encode), make(products.step))
                for name, make in self._runtimes()
                if self._best in (None, name)
            }
            if self._best is None:
                self._best = min(found, key=lambda name: _best_of(found[name]))
            self._runners[key] = found[self._best]
        return self._runners[key]

    def _runtimes(self) -> list[tuple[str, Make]]:
        """How to run a list of products, by the name of each runtime and precision that is here.

        A lower precision may also be multiplied in float32, which on some processors is faster.
        """
        found: list[tuple[str, Make]] = []
        for precision in dict.fromkeys((self._precision, "fp32")):
            found += self._in_precision(precision)
        return found

    def _in_precision(self, precision: str) -> list[tuple[str, Make]]:
        found: list[tuple[str, Make]] = []
        if precision in _DTYPES:
            dtype = _DTYPES[precision]
            found.append((f"torch {precision}", lambda p: _in_torch(p, self._device, dtype)))
        if self._device == "cuda":
            return found
        if precision == "fp32" and find_spec("onnxruntime"):
            found.append(("onnxruntime fp32", lambda p: _in_onnxruntime(p, self.threads)))
        if precision in _OPENVINO_HINTS and find_spec("openvino"):
            found.append(
                (f"openvino {precision}", lambda p: _in_openvino(p, self.threads, precision))
            )
        return found


def _best_of(runner: _Runner) -> float:
    runner.chunk_ms(2)
    return min(runner.chunk_ms(2)[0] for _ in range(_TRIES))


def _in_torch(products: Sequence[Product], device: str, dtype: torch.dtype) -> Run:
    weights: dict[int | None, torch.Tensor] = {}

    def made(shape: Sequence[int]) -> torch.Tensor:
        return torch.rand(*shape, device=device).to(dtype)

    calls: list[Run] = []
    for one in products:
        right = weights.get(one.weight) if one.weight is not None else None
        if right is None or right.shape != one.right:
            right = weights[one.weight] = made(one.right)
        left, setting = made(one.left), one.convolution
        if setting is not None:
            calls.append(_convolution(left, right, setting))
        else:
            out = made(one.output)
            calls.append(lambda a=left, b=right, out=out: torch.matmul(a, b, out=out))

    @torch.inference_mode()
    def run() -> None:
        for call in calls:
            call()

    return _captured(run) if device == "cuda" else run


def _convolution(left: torch.Tensor, right: torch.Tensor, setting: Convolution) -> Run:
    stride, padding, groups = setting.stride, setting.padding, setting.groups
    axes = len(stride)  # one, of words, or two, of pictures
    once, none = (1,) * axes, (0,) * axes
    return lambda: torch.convolution(left, right, None, stride, padding, once, False, none, groups)


def _captured(run: Run) -> Run:
    """As one CUDA graph, so that launches from Python are not what is timed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def _in_onnxruntime(products: Sequence[Product], threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        _onnx_graph(products), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    kept: list[Any] = []  # the binding does not own what it is given
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(tensor.shape, np.float32))
        kept.append(value)
        if tensor.name.startswith("out"):
            binding.bind_ortvalue_output(tensor.name, value)
        else:
            binding.bind_ortvalue_input(tensor.name, value)

    def run(kept: Any = kept) -> None:
        session.run_with_iobinding(binding)

    return run


def _in_openvino(products: Sequence[Product], threads: int, precision: str) -> Run:
    import openvino  # pyright: ignore[reportMissingImports] - an extra

    from loopdit.deploy.backends.openvino_core import CORE

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _OPENVINO_HINTS[precision],
    }
    model = CORE.read_model(_onnx_graph(products))
    request = CORE.compile_model(model, "CPU", settings).create_infer_request()
    for tensor in model.inputs:
        values = np.ones(list(tensor.shape), np.float32)
        request.set_tensor(tensor.any_name, openvino.Tensor(values, shared_memory=False))
    return request.infer


def _onnx_graph(products: Sequence[Product]) -> bytes:
    """A model of the products, each with a result of its own; left operands of one shape are one
    input, weights are initializers."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    float32 = TensorProto.FLOAT
    inputs: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    nodes: list[Any] = []
    outputs: list[Any] = []
    for number, one in enumerate(products):
        left = "left_" + "_".join(map(str, one.left))
        inputs[left] = helper.make_tensor_value_info(left, float32, one.left)
        if one.weight is None:
            right = f"right_{number}"
            inputs[right] = helper.make_tensor_value_info(right, float32, one.right)
        else:
            right = f"weight_{one.weight}"
            values = generator.standard_normal(one.right, np.float32)
            weights.setdefault(right, numpy_helper.from_array(values, right))
        out = f"out_{number}"
        outputs.append(helper.make_tensor_value_info(out, float32, one.output))
        if one.convolution is None:
            nodes.append(helper.make_node("MatMul", [left, right], [out]))
        else:
            setting = one.convolution
            attributes: dict[str, Any] = {
                "strides": setting.stride,
                "pads": (*setting.padding, *setting.padding),
                "group": setting.groups,
            }
            nodes.append(helper.make_node("Conv", [left, right], [out], **attributes))
    graph = helper.make_graph(
        nodes, "products", list(inputs.values()), outputs, list(weights.values())
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10  # what every runtime of the last years reads
    return model.SerializeToString()
