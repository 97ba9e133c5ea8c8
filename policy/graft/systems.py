"""The paper's large system, as `policy-info` counts it: a grafted transformer and its head."""

from typing import Any

from torch import nn

from loopdit.policy.graft.backbone import named_transformer
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.decoders.paper_head import PaperHead
from loopdit.policy.graft.graft import graft

_ACTIONS = 7


class GraftSystem(nn.Module):
    """The parts of a grafted transformer of a named size, with the paper's head, side by side.

    `loops` has what the graft added, which is in the blocks too and is counted here.
    """

    def __init__(self, name: str, config: GraftConfig) -> None:
        super().__init__()
        transformer = named_transformer(name)
        grafted = graft(transformer, config)
        self.loops = nn.ParameterList(grafted.loop_parameters())
        for part, module in transformer.named_children():
            self.add_module(part, module)
        self.action_head = PaperHead(int(transformer.config["out_channels"]), _ACTIONS)


def graft_system(name: str, freeze: str = "", loops: int = 0) -> GraftSystem:
    """On torch's default device; `freeze` and `loops` as in GraftConfig, its defaults where they
    are not given. Raises ConfigError for what they cannot be."""
    said: dict[str, Any] = {}
    if freeze:
        said["freeze"] = freeze
    if loops:
        said["loops"] = loops
    return GraftSystem(name, GraftConfig(**said))
