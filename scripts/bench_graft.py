"""What a looped CogVideoX costs: milliseconds of a loop pass, largest K at 10 Hz, training memory.

    python scripts/bench_graft.py                   # CogVideoX-2B with random weights, on a GPU
    python scripts/bench_graft.py size=tiny         # the small one, here, to see that it runs
    python scripts/bench_graft.py estimate=true     # work and memory of the 2B, without running it

Random weights cost what real ones do. A pass is the transformer over one clip of `frames` frames of
480 x 720, at K loops of each block, captured as a CUDA graph on a GPU as `backend=cuda-graph` does
it. The floor is the arithmetic of its products (`work_tflop`, counted by torch's FlopCounterMode)
by the speed of one large product on the same machine. Training memory is the allocator's peak over
a forward and a backward pass and an optimizer step, beside what `policy/graft/memory` expects.

On a CPU there is no allocator to ask, and memory is left out. Prints JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from loopdit.command import Command, option, run_command
from loopdit.errors import ConfigError
from loopdit.machine import machine_and_versions
from loopdit.policy.graft.backbone import COGVIDEOX_2B, TINY, keep_positions, named_transformer
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.graft import Graft, graft
from loopdit.policy.graft.memory import BF16, TrainingMemory, Work, training_memory

_SIZES = {COGVIDEOX_2B: (60, 90), TINY: (8, 12)}  # of a latent frame
_FREEZE = ("frozen", "half", "unfrozen")
_PERIOD_MS = 100.0  # of 10 Hz
_MOST_LOOPS = 32
_WARM_UPS = 2


@dataclass(frozen=True)
class BenchGraftConfig:
    """What is measured."""

    size: str = option(COGVIDEOX_2B, f"{COGVIDEOX_2B} or {TINY}")
    frames: int = option(9, "frames of the clip, 4 k + 1")
    loops: list[int] = option([1, 2, 3, 4], "each K that is measured")
    repetitions: int = option(10, "timed passes of each, the K in turn")
    estimate: bool = option(False, "run nothing: count the work, and say what memory is expected")
    memory: bool = option(True, "also train, at each K and freeze level, for its peak memory")

    def __post_init__(self) -> None:
        if self.size not in _SIZES:
            raise ConfigError(f"size={self.size} is unknown. Use {' or '.join(_SIZES)}.")


def run(config: BenchGraftConfig) -> None:
    """Measure and print."""
    if config.estimate:
        sys.stdout.write(json.dumps(_estimated(config), indent=1) + "\n")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and config.size == COGVIDEOX_2B:
        raise ConfigError(
            f"size={COGVIDEOX_2B} is for a GPU, and there is none. Use size={TINY}, or "
            f"estimate=true."
        )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    rows = _timed(config, device, dtype)
    found: dict[str, Any] = {
        "size": config.size,
        "frames": config.frames,
        "dtype": str(dtype).removeprefix("torch."),
        "passes": rows,
        "largest_loops_at_10_hz": _largest(rows),
    }
    if config.memory and device == "cuda":
        found["training_memory"] = [
            _trained(config, loops, freeze) for freeze in _FREEZE for loops in config.loops
        ]
    sys.stdout.write(json.dumps(found | machine_and_versions(), indent=1) + "\n")


def _grafted(config: BenchGraftConfig, options: GraftConfig, device: str, dtype: Any) -> Graft:
    with torch.device(device):
        transformer = named_transformer(config.size)
        keep_positions(transformer, (config.frames - 1) // 4 + 1, *_SIZES[config.size])
        grafted = graft(transformer, options)
    for value in grafted.transformer.parameters():
        if dtype is not None and not value.requires_grad:
            value.data = value.data.to(dtype)
    return grafted


def _inputs(config: BenchGraftConfig, grafted: Graft, device: str, dtype: Any) -> Any:
    sizes = grafted.transformer.config
    latents = torch.randn(1, (config.frames - 1) // 4 + 1, 16, *_SIZES[config.size])
    text = torch.randn(1, sizes["max_text_seq_length"], sizes["text_embed_dim"])
    level = torch.tensor([100], device=device)
    return latents.to(device, dtype), text.to(device, dtype), level


def _timed(config: BenchGraftConfig, device: str, dtype: Any) -> list[dict[str, Any]]:
    """Medians of passes at each K, visited in turn."""
    grafted = _grafted(config, GraftConfig(loops=max(config.loops)), device, dtype).eval()
    grafted.to(dtype)
    inputs = _inputs(config, grafted, device, dtype)
    with torch.inference_mode():
        calls = {loops: _call(grafted, inputs, loops, device) for loops in config.loops}
        work = {loops: _flops(grafted, inputs, loops) for loops in config.loops}
        times: dict[int, list[float]] = {loops: [] for loops in config.loops}
        for _ in range(config.repetitions):
            for loops, call in calls.items():
                times[loops].append(_milliseconds(call, device))
        speed = _flops_per_s(device, dtype)
    return [
        {
            "loops": loops,
            "p50_ms": round(float(np.median(each)), 3),
            "quartiles_ms": [round(float(q), 3) for q in np.percentile(each, (25, 75))],
            "work_tflop": round(work[loops] / 1e12, 6),
            "floor_ms": round(1e3 * work[loops] / speed, 3),
        }
        for loops, each in times.items()
    ]


def _call(grafted: Graft, inputs: Any, loops: int, device: str) -> Callable[[], object]:
    """A pass at K; on a GPU as one captured graph."""
    for _ in range(_WARM_UPS):
        grafted(*inputs, loops=loops)
    if device == "cpu":
        return lambda: grafted(*inputs, loops=loops)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        grafted(*inputs, loops=loops)
    return captured.replay


def _milliseconds(call: Callable[[], object], device: str) -> float:
    began = perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (perf_counter() - began)


def _flops(grafted: Graft, inputs: Any, loops: int) -> int:
    with FlopCounterMode(display=False) as counter:
        grafted(*inputs, loops=loops)
    return counter.get_total_flops()


def _flops_per_s(device: str, dtype: Any) -> float:
    """Of one large product, the fastest of several."""
    side = 8192 if device == "cuda" else 512
    a = torch.randn(side, side, device=device, dtype=dtype)
    times = [_milliseconds(lambda: a @ a, device) for _ in range(_WARM_UPS + 5)]
    return 2 * side**3 / (1e-3 * min(times[_WARM_UPS:]))


def _largest(rows: list[dict[str, Any]]) -> int | None:
    """The most loops within a control period, by the line through what was measured."""
    if len(rows) < 2:  # a line takes two points
        return None
    slope, rest = np.polyfit([row["loops"] for row in rows], [row["p50_ms"] for row in rows], 1)
    return int(np.clip((_PERIOD_MS - rest) // slope, 0, _MOST_LOOPS)) if slope > 0 else None


def _trained(config: BenchGraftConfig, loops: int, freeze: str) -> dict[str, Any]:
    """Peak bytes of a training step on the GPU, and those expected, by how it checkpoints."""
    row: dict[str, Any] = {"loops": loops, "freeze": freeze}
    for checkpointing in ("none", "loop", "nested"):
        torch.cuda.empty_cache()
        options = GraftConfig(loops=loops, freeze=freeze)
        grafted = _grafted(config, options, "cuda", torch.bfloat16).train()
        trained = list(grafted.trained().values())
        optimizer = torch.optim.AdamW(trained, fused=True)
        inputs = _inputs(config, grafted, "cuda", torch.bfloat16)
        torch.cuda.reset_peak_memory_stats()
        try:
            with torch.autocast("cuda", torch.bfloat16):
                said = grafted(*inputs, loops=loops, checkpointing=checkpointing)
                said.sample.float().square().mean().backward()
            optimizer.step()
            row[checkpointing] = torch.cuda.max_memory_allocated()
        except torch.OutOfMemoryError:
            row[checkpointing] = None
        del trained, optimizer, inputs
        row[f"{checkpointing}_estimated"] = _expected(config, grafted, checkpointing).total
        del grafted
    return row


def _expected(config: BenchGraftConfig, grafted: Graft, checkpointing: str) -> TrainingMemory:
    """Of one clip at all of its loops, in bf16."""
    trained = sum(p.numel() for p in grafted.trained().values())
    work = Work(
        transformer={k: v for k, v in dict(grafted.transformer.config).items() if k[0] != "_"},
        graft=grafted.config,
        frozen=sum(p.numel() for p in grafted.parameters()) - trained,
        trained=trained,
        latents=((config.frames - 1) // 4 + 1, 16, *_SIZES[config.size]),
        rows=1,
        passes=[grafted.config.loops],
        precision=BF16,
        checkpointing=checkpointing,
    )
    return training_memory(work)


def _estimated(config: BenchGraftConfig) -> dict[str, Any]:
    """Work of a pass and memory of a training step, from shapes alone."""
    rows: list[dict[str, Any]] = []
    for freeze in _FREEZE:
        for loops in config.loops:
            grafted = _grafted(config, GraftConfig(loops=loops, freeze=freeze), "meta", None)
            expected = {
                f"{mode}_gib": round(_expected(config, grafted, mode).total / 2**30, 2)
                for mode in ("none", "loop", "nested")
            }
            rows.append({"freeze": freeze, "loops": loops, **expected})
    grafted = _grafted(config, GraftConfig(loops=max(config.loops)), "meta", None)
    inputs = _inputs(config, grafted, "meta", torch.float32)
    work = {loops: round(_flops(grafted, inputs, loops) / 1e12, 2) for loops in config.loops}
    return {"size": config.size, "frames": config.frames, "work_tflop": work, "memory": rows}


COMMAND = Command(
    name="bench_graft",
    folder="bench_graft",
    summary="what a looped CogVideoX costs in time and memory.",
    examples=(
        "python scripts/bench_graft.py size=tiny",
        "python scripts/bench_graft.py estimate=true frames=49",
    ),
)

if __name__ == "__main__":
    run_command(COMMAND, BenchGraftConfig, run)
