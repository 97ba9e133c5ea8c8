"""Our kernel inside an engine: the node FusedDenoise (`export.fused_graph`) as a TensorRT plugin.

A plugin in Python, by the interface IPluginV3 of TensorRT 10 and 11: whoever builds or runs an
engine with it registers it first, in the same process. It launches the kernel that Triton compiles
for the GPU at its first use, on the engine's stream, so that it is captured with the rest.

Not yet run: TensorRT itself is not installed where this was written. `fused_denoise` has what is
made of it. TensorRT for RTX 1.7.1, whose
bindings have the same classes, ends the process when its parser comes to any plugin in Python.

The other way, a kernel compiled ahead of time inside the engine, has no place for what programs
need that meet: a cooperative launch, and counters that are zero.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopdit.deploy.backends.fused.gpu_form import KernelForm, launch_options
from loopdit.deploy.backends.tensorrt.library import TENSORRT, Library
from loopdit.errors import BundleError

# As `export.fused_graph` writes them; an engine's parser matches them with the node's.
PLUGIN, NAMESPACE, VERSION = "FusedDenoise", "", "1"

_INPUTS = 22  # of the kernel, up to `visible`; then come its two outputs
_OUTPUTS = 2
_KEYS = 1  # its place among the inputs
_FORM = tuple(field.name for field in fields(KernelForm))
_GIVEN = (*_FORM, "loops", "steps")


@dataclass(frozen=True)
class _Address:
    """A pointer as Triton takes a tensor."""

    address: int
    dtype: torch.dtype

    def data_ptr(self) -> int:
        """As a tensor has it."""
        return self.address


def register_fused_plugin(library: Library) -> None:
    """Make the node known to `library` for parsing, building and running; once is enough.

    Raises BundleError for a library that takes no plugins in Python, or of another interface.
    """
    if library.name != TENSORRT:
        raise BundleError(
            f"{library.title} takes no plugins in Python. Use TensorRT itself, or "
            f"backend=fused-cuda."
        )
    try:
        registry = library.module.get_plugin_registry()
        if registry.get_creator(PLUGIN, VERSION, NAMESPACE) is not None:
            return
        creator = fused_creator(library.module)
        taken = registry.register_creator(creator, NAMESPACE)
    except (AttributeError, TypeError) as error:
        raise BundleError(f"{library.title} has another interface for plugins: {error}.") from error
    if not taken:
        raise BundleError(f"{library.title} refuses the plugin {PLUGIN}: is there another?")
    _registered.append(creator)


_registered: list[Any] = []  # a registry does not own its creators


def fused_creator(module: Any) -> Any:
    """What makes the plugin from a node's attributes; `module` is the library's."""
    plugin_class = _plugin_class(module)

    class Creator(module.IPluginCreatorV3One):
        def __init__(self) -> None:
            module.IPluginCreatorV3One.__init__(self)
            self.name = PLUGIN
            self.plugin_namespace = NAMESPACE
            self.plugin_version = VERSION
            kind = module.PluginFieldType.INT32
            names = [module.PluginField(name, np.array([]), kind) for name in _GIVEN]
            self.field_names = module.PluginFieldCollection(names)

        def create_plugin(self, name: str, given: Any, phase: Any) -> Any:
            return plugin_class({field.name: int(np.asarray(field.data)[0]) for field in given})

    return Creator()


def _plugin_class(module: Any) -> Any:
    """The plugin, of a library's own base classes; their documentation says what calls what."""

    class FusedDenoise(
        module.IPluginV3,
        module.IPluginV3OneCore,
        module.IPluginV3OneBuild,
        module.IPluginV3OneRuntime,
    ):
        def __init__(self, given: dict[str, int]) -> None:
            module.IPluginV3.__init__(self)
            module.IPluginV3OneCore.__init__(self)
            module.IPluginV3OneBuild.__init__(self)
            module.IPluginV3OneRuntime.__init__(self)
            self.given = given
            # Here, because a field is only a pointer to its numbers.
            self._stored = {n: np.array([value], np.int32) for n, value in given.items()}
            sizes: dict[str, Any] = {name: given[name] for name in _FORM}
            flags = {name: bool(given[name]) for name in ("masked", "committed", "injected")}
            self.form = KernelForm(**(sizes | flags))
            self.num_outputs = _OUTPUTS
            self.plugin_name = PLUGIN
            self.plugin_namespace = NAMESPACE
            self.plugin_version = VERSION

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return FusedDenoise(self.given)

        def get_output_data_types(self, inputs: Any) -> Any:
            return [module.DataType.FLOAT] * _OUTPUTS

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> Any:
            return [module.DimsExprs(inputs[0]) for _ in range(_OUTPUTS)]

        def supports_format_combination(self, at: int, tensors: Any, inputs: int) -> bool:
            desc = tensors[at].desc
            linear = desc.format == module.TensorFormat.LINEAR
            return linear and desc.type == module.DataType.FLOAT and inputs == _INPUTS

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            return sum(_workspace(self.form, inputs[0].max[0]))

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def set_tactic(self, tactic: int) -> None:
            pass

        def get_fields_to_serialize(self) -> Any:
            kind = module.PluginFieldType.INT32
            return module.PluginFieldCollection(
                [module.PluginField(name, value, kind) for name, value in self._stored.items()]
            )

        def enqueue(
            self,
            input_desc: Any,
            output_desc: Any,
            inputs: list[int],
            outputs: list[int],
            workspace: int,
            stream: int,
        ) -> None:
            keys = input_desc[_KEYS].dims
            with torch.cuda.stream(torch.cuda.ExternalStream(stream)):
                launch(self.form, self.given["steps"], tuple(keys), inputs, outputs, workspace)

    return FusedDenoise


def launch(
    form: KernelForm,
    steps: int,
    keys: tuple[int, ...],
    inputs: list[int],
    outputs: list[int],
    workspace: int,
) -> None:
    """The kernel on torch's current stream, over addresses of the GPU's memory.

    keys: their shape (K L, B, heads, N, d). inputs, outputs: in the kernel's order. workspace:
    as many bytes as the plugin asked for.
    """
    from loopdit.deploy.backends.fused.triton_kernel import denoise_kernel

    depth, batch, _, tokens, _ = keys
    summands = _workspace(form, batch)[0]
    _int32(workspace + summands, batch).zero_()
    processors = torch.cuda.get_device_properties().multi_processor_count
    programs = form.programs(batch, processors)
    pointers = [_Address(address, torch.float32) for address in (*outputs, workspace)]
    kernel: Any = denoise_kernel[(programs, batch)]
    kernel(
        *(_Address(address, torch.float32) for address in inputs),
        *(batch, tokens, depth // form.blocks, steps),
        *pointers,
        _Address(workspace + summands, torch.int32),
        **form.constants,
        **launch_options(programs),
    )


def _workspace(form: KernelForm, batch: int) -> tuple[int, int]:
    """Bytes of the summands and of the arrivals."""
    units = form.heads + form.tiles
    return 4 * batch * units * form.rows * form.width, 4 * batch


class _Memory:
    """Numbers of the GPU's memory, for `torch.as_tensor`."""

    def __init__(self, address: int, count: int) -> None:
        self.__cuda_array_interface__ = {
            **{"shape": (count,), "typestr": "<i4", "data": (address, False), "version": 3}
        }


def _int32(address: int, count: int) -> Tensor:
    return torch.as_tensor(_Memory(address, count), device="cuda")
