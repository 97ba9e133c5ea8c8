"""How much time per-token halting saves, beside the loops it saves: 1,024 tokens on 2 threads.

Two stacks with the same weights, with and without halting. The gate reads a random direction of
the state, and its bias is set so that tokens halt at different depths and are in half of the loops
on average. Each repetition runs both arms, one after the other, in this process, so that other work
on the machine slows both alike; a ratio is taken within a repetition. Processor time is what a busy
machine disturbs least.

    python scripts/bench_halting.py [--tokens N] [--loops K] [--batch B] [--repetitions N]
"""

import argparse
import sys
import time

import numpy as np
import torch
from torch import Tensor

from loopdit.machine import describe_machine, machine_and_versions
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.exit_gates import ExitGate
from loopdit.policy.loops.looped_stack import LoopedStack

WIDTH, BLOCKS = 128, 3


def main() -> None:
    """Measure both scopes and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = machine_and_versions()
    _say(f"{describe_machine(facts)}; {(facts['commit'] or 'no commit')}")
    _say(
        f"{options.tokens} tokens, batch {options.batch}, width {WIDTH}, {BLOCKS} blocks x "
        f"{options.loops} loops, {options.threads} threads, {options.repetitions} repetitions\n"
    )
    for scope in ("stack", "block"):
        _measure(scope, options)


@torch.inference_mode()
def _measure(scope: str, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    plain = _stack(scope, options.loops, "none")
    halting = _stack(scope, options.loops, "token")
    halting.load_state_dict(plain.state_dict(), strict=False)
    tokens = torch.randn(options.batch, options.tokens, WIDTH)
    condition = torch.randn(options.batch, 1, WIDTH)
    used = _halve(halting, tokens, condition)
    wall: dict[str, list[float]] = {"no halting": [], "halting": []}
    processor: dict[str, list[float]] = {"no halting": [], "halting": []}
    for repetition in range(options.repetitions + 3):
        for name, stack in (("no halting", plain), ("halting", halting)):
            began, worked = time.perf_counter(), time.process_time()
            stack(tokens, condition)
            if repetition >= 3:  # the first ones only warm up
                wall[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - worked)
    _say(f"scope={scope}: mean loops used {used.mean():.3f} of {options.loops}")
    if scope == "stack":
        counts = torch.bincount(used.flatten().long(), minlength=options.loops + 1)[1:]
        _say(f"  tokens that halt after loop 1, 2, ...: {counts.tolist()}")
    for kind, seconds in (("wall", wall), ("processor", processor)):
        without, with_it = (np.array(values) for values in seconds.values())
        ratios = without / with_it
        _say(f"  {kind} time without halting: {_quartiles(1e3 * without)} ms")
        _say(f"  {kind} time with halting: {_quartiles(1e3 * with_it)} ms")
        _say(f"  {kind} time, ratio: {_quartiles(ratios)}: {1 - 1 / np.median(ratios):.0%} saved")
    _say("")


def _stack(scope: str, loops: int, halting: str) -> LoopedStack:
    """Random weights with open gates: fresh ones hardly move the state after the first loop."""
    config = LoopConfig(loops=loops, scope=scope, init="paper", halting=halting)
    return LoopedStack(lambda: AdaLNBlock(WIDTH), BLOCKS, WIDTH, config).eval()


def _halve(stack: LoopedStack, tokens: Tensor, condition: Tensor) -> Tensor:
    """Set the gates for a mean of half the loops; returns the loops used (B, N)."""
    gates = [module.logit for module in stack.modules() if isinstance(module, ExitGate)]
    for gate in gates:
        torch.nn.init.normal_(gate.weight, std=0.3)

    def used(bias: float) -> Tensor:
        for gate in gates:
            torch.nn.init.constant_(gate.bias, bias)
        return stack(tokens, condition).loops_used

    low, high = -20.0, 20.0  # a higher bias halts earlier
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if used(middle).mean() < stack.config.loops / 2 else (middle, high)
        )
    return used(low)


def _quartiles(values: np.ndarray) -> str:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{median:.3g} (quartiles {low:.3g} to {high:.3g})"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
