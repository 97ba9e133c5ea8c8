"""How much faster the one-way policy denoises with its cache than a dense canvas of the same size.

120 input tokens, 16 action tokens, 10 denoising steps, K = 3 loops of the same AdaLN blocks, batch
1, float32. The dense canvas attends from all 136 tokens to all 136 in each step, because its inputs
see the noise. One way, the inputs go through the loops once, their keys and values are kept, and a
step runs the action tokens alone. Beside both stands the one-way policy without its cache: what the
cached one computes, at the price of the dense one.

The arms take turns in one process, each with each number of threads, in a seeded random order, so
that other work on the machine falls on all alike; a ratio is taken within a repetition. A second
thread helps 136 tokens and hinders 16, so the last column gives each arm the threads that suit it.
That cached and uncached agree is asserted before anything is timed. Writes OUT/bench_one_way.json.

On a machine that is shared, set OMP_WAIT_POLICY=passive: threads that spin for each other measure
the scheduler.

    python scripts/bench_one_way.py [--widths 128 192] [--threads 1 2] [--repetitions 60]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loopdit.machine import describe_machine, machine_and_versions
from loopdit.policy.block import AdaLNBlock, KeyValue, Modulation
from loopdit.policy.objectives.flow import Flow
from loopdit.whole_file import whole_file

TOLERANCE = 1e-5
_WARM_UP = 3
ENCODE = "encode"  # the part of CACHED that is done once for an observation
CACHED, UNCACHED, DENSE = "one way, cached", "one way, without cache", "dense canvas"


@dataclass(frozen=True)
class Size:
    """What all arms compute."""

    inputs: int
    actions: int
    steps: int
    loops: int
    blocks: int


class Arms:
    """Three ways from inputs (1, N, D) and noise (1, H, D) to H denoised tokens (1, H, D).

    What is not a block (stems, heads, embeddings) costs each way the same and is left out; the time
    enters by its sine alone.
    """

    def __init__(self, width: int, size: Size) -> None:
        generator = torch.Generator().manual_seed(0)
        self.size = size
        self.blocks = [AdaLNBlock(width) for _ in range(size.blocks)]
        for parameter in chain.from_iterable(block.parameters() for block in self.blocks):
            scale = parameter.shape[-1] ** -0.5
            nn.init.normal_(parameter, std=0.5 * scale, generator=generator)
        self.frequencies = torch.linspace(0.5, 20.0, width)
        self.inputs = torch.randn(1, size.inputs, width, generator=generator)
        self.noise = torch.randn(1, size.actions, width, generator=generator)
        tokens = size.inputs + size.actions
        self.one_way = torch.ones(tokens, tokens, dtype=torch.bool)
        self.one_way[: size.inputs, size.inputs :] = False

    def cached(self) -> Tensor:
        """One way: each denoising step runs the action tokens alone."""
        return self.denoise(self.encode())

    def encode(self) -> list[KeyValue]:
        """The inputs' keys and values for each (loop, block)."""
        tokens, kept = self.inputs, list[KeyValue]()
        for block, modulation in self._passes(self._condition(torch.ones(1))):
            tokens, key_value = block.run(tokens, modulation)
            kept.append(key_value)
        return kept

    def denoise(self, kept: Sequence[KeyValue]) -> Tensor:
        """The chunk, from what `encode` kept."""

        def predict(sample: Tensor, times: Tensor) -> Tensor:
            passes = self._passes(self._condition(times))
            for (block, modulation), context in zip(passes, kept, strict=True):
                sample, _ = block.run(sample, modulation, context)
            return sample

        return Flow().sample(predict, self.noise, self.size.steps)

    def uncached(self) -> Tensor:
        """One way, by a mask over all tokens, computed anew in each step."""
        return self._whole_canvas(self.one_way)

    def dense(self) -> Tensor:
        """Everything attends to everything, and one time conditions all, as in the paper."""
        return self._whole_canvas(None)

    def _whole_canvas(self, mask: Tensor | None) -> Tensor:
        def predict(sample: Tensor, times: Tensor) -> Tensor:
            tokens = torch.cat([self.inputs, sample], dim=1)
            condition = self._condition(times)
            if mask is not None:  # the inputs are clean, which their tokens are told
                clean = self._condition(torch.ones(1)).expand(-1, self.size.inputs, -1)
                condition = torch.cat([clean, condition.expand(-1, self.size.actions, -1)], dim=1)
            for block, modulation in self._passes(condition):
                tokens, _ = block.run(tokens, modulation, bias=mask)
            return tokens[:, self.size.inputs :]

        return Flow().sample(predict, self.noise, self.size.steps)

    def _passes(self, condition: Tensor) -> list[tuple[AdaLNBlock, Modulation]]:
        """The blocks of all loops; a block's modulation is the same in each."""
        return [(block, block.modulate(condition)) for block in self.blocks] * self.size.loops

    def _condition(self, times: Tensor) -> Tensor:
        return (times[:, None] * self.frequencies).sin()[:, None]


def main() -> None:
    """Measure, write the record, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 192])
    parser.add_argument("--inputs", type=int, default=120)
    parser.add_argument("--actions", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--loops", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench-one-way"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    size = Size(options.inputs, options.actions, options.steps, options.loops, options.blocks)
    facts = machine_and_versions()
    rows = [_measure(w, size, options.threads, options.repetitions) for w in options.widths]
    with whole_file(options.out / "bench_one_way.json") as aside:
        record = {"size": asdict(size), "rows": rows, **facts}
        aside.write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write(f"{_table(rows, size)}\n{describe_machine(facts)}\n")


@torch.inference_mode()
def _measure(width: int, size: Size, threads: Sequence[int], repetitions: int) -> dict[str, Any]:
    arms = Arms(width, size)
    error = float((arms.cached() - arms.uncached()).abs().max())
    if error > TOLERANCE:
        raise AssertionError(f"cached and uncached differ by {error:.2g} at width {width}")
    runs: dict[str, Callable[[], object]] = {
        CACHED: arms.cached,
        UNCACHED: arms.uncached,
        DENSE: arms.dense,
        ENCODE: arms.encode,
    }
    turns = [(name, count) for name in runs for count in threads]
    times: dict[tuple[str, int], list[float]] = {turn: [] for turn in turns}
    generator = np.random.default_rng(0)
    for repetition in range(repetitions + _WARM_UP):
        for index in generator.permutation(len(turns)):
            name, count = turns[int(index)]
            torch.set_num_threads(count)
            began = time.perf_counter()
            runs[name]()
            if repetition >= _WARM_UP:
                times[name, count].append(1000 * (time.perf_counter() - began))
    ms = {turn: np.array(found) for turn, found in times.items()}
    best = {name: min(threads, key=lambda n: float(np.median(ms[name, n]))) for name in runs}
    return {
        "width": width,
        "repetitions": repetitions,
        "max_abs_error": error,
        "ms": {name: {n: _spread(ms[name, n]) for n in threads} for name in runs},
        "dense_to_cached": {n: _spread(ms[DENSE, n] / ms[CACHED, n]) for n in threads},
        "best_threads": best,
        "dense_to_cached_at_best": _spread(ms[DENSE, best[DENSE]] / ms[CACHED, best[CACHED]]),
    }


def _spread(found: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
    return {
        "median": float(middle),
        "q25": float(low),
        "q75": float(high),
        "fastest": float(found.min()),
    }


def _table(rows: Sequence[dict[str, Any]], size: Size) -> str:
    lines = [
        f"{size.inputs} input and {size.actions} action tokens, {size.steps} steps, "
        f"K = {size.loops}, {size.blocks} block(s); medians, quartiles in brackets",
        "",
        "| width | threads | cached ms | encode of it | without cache ms | dense ms "
        "| dense / cached | each at its best |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms, best = row["ms"], row["best_threads"]
        chosen = f"{_ratio(row['dense_to_cached_at_best'])}, {best[DENSE]} / {best[CACHED]} threads"
        for count, ratio in row["dense_to_cached"].items():
            cells = [ms[name][count]["median"] for name in (CACHED, ENCODE, UNCACHED, DENSE)]
            lines.append(
                f"| {row['width']} | {count} | {' | '.join(f'{cell:.1f}' for cell in cells)} "
                f"| {_ratio(ratio)} | {chosen} |"
            )
    return "\n".join(lines)


def _ratio(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} [{spread['q25']:.2f}, {spread['q75']:.2f}]"


if __name__ == "__main__":
    main()
