"""From a static graph to a serialized engine whose types are the graph's, or no engine at all.

Networks are strongly typed: a builder may fuse and reorder, but not choose a precision. That the
types are the ones that were asked for is asserted twice: here on the network's weights, before
minutes are spent, and in `engine_types` on what the engine says of itself.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loopdit.deploy.backends.cuda_driver import Gpu
from loopdit.deploy.backends.tensorrt.build_progress import BuildProgress
from loopdit.deploy.backends.tensorrt.engine_types import PRECISIONS, our_dtype
from loopdit.deploy.backends.tensorrt.library import Library
from loopdit.deploy.backends.tensorrt.library_log import LibraryLog
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph
from loopdit.errors import BundleError


@dataclass(frozen=True)
class Build:
    """A serialized engine, and what the builder timed for the next one (None: nothing)."""

    engine: bytes
    timings: bytes | None


def build_engine(
    library: Library,
    graph: StaticGraph,
    precision: str,
    gpu: Gpu,
    timings: bytes | None = None,
    report: Callable[[float], None] = lambda share: None,
) -> Build:
    """Build `graph` for `gpu`; `report` is told the share that is done, now and then.

    Raises BundleError when the library cannot take the graph, the graph is not of `precision`, or
    memory does not suffice.
    """
    module, log = library.module, LibraryLog(library)
    builder = module.Builder(log.native)
    network = library.network(builder)
    parser = module.OnnxParser(network, log.native)
    # By the path it finds the weights, which are beside it.
    if not parser.parse(graph.content, str(graph.path)):
        raise BundleError(
            f"{library.title} cannot read {graph.path}: {log.reason()} "
            f"Export the bundle again with this version of loopdit, or use another backend=."
        )
    _require_weights(module, network, graph, precision)
    config = builder_config(library, builder, gpu)
    library.restore_timings(config, timings)
    monitor = _monitor(module, report)
    config.progress_monitor = monitor
    engine = builder.build_serialized_network(network, config)
    if monitor.stopped is not None:
        raise monitor.stopped
    if engine is None:
        raise BundleError(
            f"{library.title} cannot build {graph.name} for {gpu.name}: {log.reason()} "
            f"If memory was short, stop what else uses the GPU; or use another backend=."
        )
    return Build(bytes(engine), library.timings(config))


def builder_config(library: Library, builder: Any, gpu: Gpu) -> Any:
    """How engines are built: for `gpu`, in the graph's own numbers, able to say what they are."""
    module = library.module
    config = builder.create_builder_config()
    # On by default, and it would round the inputs of float32 products to 10 bits in silence.
    config.clear_flag(module.BuilderFlag.TF32)
    # Else an engine knows the names of its layers only, not their types.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    library.aim(config, gpu)
    return config


def _require_weights(module: Any, network: Any, graph: StaticGraph, precision: str) -> None:
    """Raise BundleError unless the network's weights are of the precision that was asked for.

    float32 allows no lower ones. A lower precision must be there and may be beside float32, in
    which exports keep what does not bear rounding.
    """
    counts = _count_weights(module, network)
    found = {dtype: counts[dtype] for dtype in PRECISIONS if counts[dtype]}
    if precision not in found or found.keys() - {precision, "fp32"}:
        has = ", ".join(f"{count} {dtype}" for dtype, count in found.items()) or "no"
        raise BundleError(
            f"{graph.path} was asked for in {precision} but has {has} weights. Export the bundle "
            f"again with precision=[{precision}]."
        )


def _count_weights(module: Any, network: Any) -> Counter[str]:
    """How many numbers of each type are constants of the network."""
    counts: Counter[str] = Counter()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == module.LayerType.CONSTANT:
            tensor = layer.get_output(0)
            size = module.volume(tensor.shape)
        elif layer.type == module.LayerType.CONVOLUTION:
            tensor = layer.get_input(0)  # whose type its kernel has
            layer.__class__ = module.IConvolutionLayer  # layers are handed out as their base class
            size = layer.kernel.size
        else:
            continue
        counts[our_dtype(tensor.dtype)] += int(size)
    return counts


def _monitor(module: Any, report: Callable[[float], None]) -> Any:
    """The library's IProgressMonitor, which tells `report`; Ctrl+C in it ends the build."""
    progress = BuildProgress()

    class Monitor(module.IProgressMonitor):
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.stopped: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                report(progress.step(phase_name, step))
            except BaseException as error:  # it must not unwind through the library's own frames
                self.stopped = error
            return self.stopped is None

    return Monitor()
