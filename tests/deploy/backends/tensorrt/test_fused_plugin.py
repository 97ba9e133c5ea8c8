"""The plugin's class over TensorRT for RTX's bindings, which have the same interface."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.deploy.backends.fused.fused_policies import POLICIES, random_policy

from loopdit.deploy.backends.fused.gpu_form import KernelForm, kernel_form
from loopdit.deploy.backends.tensorrt.fused_plugin import (
    NAMESPACE,
    PLUGIN,
    VERSION,
    fused_creator,
    register_fused_plugin,
)
from loopdit.deploy.backends.tensorrt.library import TENSORRT, Library
from loopdit.errors import BundleError

INPUTS, OUTPUTS = 22, 2


@pytest.fixture
def form() -> KernelForm:
    return kernel_form(random_policy(*POLICIES["everything"]))


@pytest.fixture
def plugin(rtx: Library, form: KernelForm) -> Any:
    given = {name: int(value) for name, value in vars(form).items()} | {"loops": 2, "steps": 7}
    numbers = {name: np.array([value], np.int32) for name, value in given.items()}
    kind = rtx.module.PluginFieldType.INT32
    fields = [rtx.module.PluginField(name, value, kind) for name, value in numbers.items()]
    node = rtx.module.PluginFieldCollection(fields)
    return fused_creator(rtx.module).create_plugin("node", node, None)


def test_it_is_what_the_nodes_attributes_say_and_stays_it_in_an_engine(
    rtx: Library, plugin: Any, form: KernelForm
):
    assert plugin.form == form
    assert plugin.given["steps"] == 7
    stored = plugin.get_fields_to_serialize()
    restored = fused_creator(rtx.module).create_plugin("node", stored, None)
    for copy in (restored, plugin.clone(), plugin.attach_to_context(None)):
        assert copy.given == plugin.given
        assert (copy.plugin_name, copy.plugin_namespace, copy.plugin_version) == (
            *(PLUGIN, NAMESPACE, VERSION),
        )


def test_it_takes_float32_in_plain_order_and_nothing_else(rtx: Library, plugin: Any):
    module = rtx.module

    def takes(kind: Any, order: Any) -> bool:
        tensor = SimpleNamespace(desc=SimpleNamespace(type=kind, format=order))
        return plugin.supports_format_combination(0, [tensor], INPUTS)

    assert takes(module.DataType.FLOAT, module.TensorFormat.LINEAR)
    assert not takes(module.DataType.HALF, module.TensorFormat.LINEAR)
    assert not takes(module.DataType.FLOAT, module.TensorFormat.HWC)
    assert plugin.get_output_data_types([]) == [module.DataType.FLOAT] * OUTPUTS


def test_its_workspace_holds_the_summands_of_the_largest_batch_and_a_counter_each(
    plugin: Any, form: KernelForm
):
    inputs = [SimpleNamespace(max=(5, 8, 2))]
    # "everything": two heads and six tiles of the hidden layer's 170 columns, two rows of 64.
    assert (form.heads, form.tiles, form.rows, form.width) == (2, 6, 2, 64)
    assert plugin.get_workspace_size(inputs, []) == 5 * ((2 + 6) * 2 * 64 + 1) * 4


def test_tensorrt_for_rtx_is_refused_before_its_parser_ends_the_process(rtx: Library):
    with pytest.raises(BundleError, match=r"tensorrt-rtx .*no plugins in Python.*fused-cuda"):
        register_fused_plugin(rtx)


def test_it_is_registered_once(rtx: Library):
    library = Library(TENSORRT, rtx.module)  # of the same bindings; nothing is parsed
    for _ in range(2):
        register_fused_plugin(library)
    creator = rtx.module.get_plugin_registry().get_creator(PLUGIN, VERSION, NAMESPACE)
    assert creator.name == PLUGIN
    assert rtx.module.get_plugin_registry().deregister_creator(creator)
