"""Small stacks whose every part shows: no gate, embedding, map or modulation is zero."""

import torch
from torch import Tensor

from loopdit.policy.block import AdaLNBlock
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.exit_gates import ExitGate
from loopdit.policy.loops.looped_block import LoopedBlock
from loopdit.policy.loops.looped_stack import LoopedStack
from loopdit.policy.loops.looped_unit import LoopedUnit

WIDTH = 64


def fresh(config: LoopConfig, blocks: int = 2, geometric: int = 0, seed: int = 0) -> LoopedStack:
    torch.manual_seed(seed)
    return LoopedStack(lambda: AdaLNBlock(WIDTH, geometric=geometric), blocks, WIDTH, config)


def random_stack(config: LoopConfig, blocks: int = 2, geometric: int = 0) -> LoopedStack:
    """In float64, so that comparisons can be tight."""
    stack = fresh(config, blocks, geometric).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in stack.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return stack


def random(*shape: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def units(stack: LoopedStack) -> list[LoopedUnit]:
    return [unit for unit in stack.units if isinstance(unit, LoopedUnit)]


def looped_blocks(stack: LoopedStack) -> list[LoopedBlock]:
    return [module for module in stack.modules() if isinstance(module, LoopedBlock)]


def halting_gates(stack: LoopedStack) -> list[ExitGate]:
    return [module for module in stack.modules() if isinstance(module, ExitGate)]
