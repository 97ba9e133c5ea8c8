"""How many parameters a module has, in all and by part.

A part is a direct child, or a parameter of the module itself. Numbers alone: a module on the
`meta` device, which has shapes and no memory, is counted like any other.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

Counts = dict[str, Any]


def parameter_counts(module: nn.Module) -> Counts:
    """{"parameters", "trainable", "parts": {name: {"parameters", "trainable"}}}.

    A parameter that two parts share is counted once, with the first of them. Buffers are none.
    Parts without parameters are left out.
    """
    by_part: dict[str, list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        by_part.setdefault(name.partition(".")[0], []).append(parameter)
    parts = {name: _counted(found) for name, found in by_part.items()}
    return _counted(module.parameters()) | {"parts": parts}


def _counted(parameters: Iterable[Tensor]) -> Counts:
    found = list(parameters)
    return {
        "parameters": sum(parameter.numel() for parameter in found),
        "trainable": sum(parameter.numel() for parameter in found if parameter.requires_grad),
    }
