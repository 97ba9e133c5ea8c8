"""What a looped CogVideoX costs: milliseconds of a loop, largest K at 10 Hz, memory of training.

    python scripts/bench_graft.py out=graft.json    # CogVideoX-2B with random weights, on a GPU
    python scripts/bench_graft.py size=tiny         # the small one, here, to see that it runs
    python scripts/bench_graft.py estimate=true     # work and memory of the 2B, without running it

Random weights cost what real ones do. For clips of each number of `frames` of 480 x 720:

    pass      the transformer over one clip, at K loops of each block
    chunk     what a robot waits for after the latents: noise, that pass, the decoder's ten steps
    latents   the autoencoder on the clip, before that: launch by launch, as in backend=cuda-graph
    floor     the arithmetic of the pass's products (counted by torch's FlopCounterMode; 15.57 TFLOP
              for 9 frames at K = 1) by the speed of one large product on the same machine
    training  the allocator's peak over a forward and a backward pass and an optimizer step, beside
              what `policy/graft/memory` expects, by freeze level, K and checkpointing

On a GPU pass and chunk are captured as CUDA graphs. On a CPU all of it runs too, and what an
allocator would be asked is null. Prints JSON.
"""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from loopdit.command import Command, option, run_command
from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.video.clips import ClipConfig
from loopdit.errors import ConfigError
from loopdit.machine import machine_and_versions
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.graft.backbone import (
    COGVIDEOX_2B,
    TINY,
    Backbone,
    keep_positions,
    named_scheduler,
    named_transformer,
)
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.decoders.config import DecoderConfig
from loopdit.policy.graft.graft import Graft, graft
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.graft.latents import small_vae
from loopdit.policy.graft.memory import BF16, TrainingMemory, Work, training_memory
from loopdit.policy.graft.policy_config import GraftPolicyConfig

_SIZES = {COGVIDEOX_2B: (480, 720), TINY: (64, 96)}  # of a picture
_SHRINK, _CHANNELS = 8, 16  # of an autoencoder's latents
_FREEZE = ("frozen", "half", "unfrozen")
_CHECKPOINTS = ("none", "loop", "nested")
_HORIZON, _STEPS = 16, 10
_PERIOD_MS = 100.0  # of 10 Hz
_MOST_LOOPS = 32
_WARM_UPS = 2


@dataclass(frozen=True)
class BenchGraftConfig:
    """What is measured."""

    size: str = option(COGVIDEOX_2B, f"{COGVIDEOX_2B} or {TINY}")
    frames: list[int] = option([1, 9], "frames of the clips, each 4 k + 1")
    loops: list[int] = option([1, 2, 3, 4], "each K that is measured")
    repetitions: int = option(10, "timed passes of each, the K in turn")
    estimate: bool = option(False, "run nothing: count the work, and say what memory is expected")
    memory: bool = option(True, "also train, at each K and freeze level, for its peak memory")
    out: str = option("", "file for the JSON besides; empty: none")

    def __post_init__(self) -> None:
        if self.size not in _SIZES:
            raise ConfigError(f"size={self.size} is unknown. Use {' or '.join(_SIZES)}.")
        for frames in self.frames:
            self.clips(frames)  # may refuse
        if min(self.loops, default=0) < 1 or self.repetitions < 1 or not self.frames:
            raise ConfigError("give one or more frames, loops of 1 or more, and a repetition.")

    def clips(self, frames: int) -> ClipConfig:
        """The clips of so many frames."""
        height, width = _SIZES[self.size]
        return ClipConfig(frames=frames, height=height, width=width)


def run(config: BenchGraftConfig) -> None:
    """Measure and print."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and config.size == COGVIDEOX_2B and not config.estimate:
        raise ConfigError(
            f"size={COGVIDEOX_2B} is for a GPU, and there is none. Use size={TINY}, or "
            f"estimate=true."
        )
    of_clips = [
        _estimated(config, frames) if config.estimate else _measured(config, frames, device)
        for frames in config.frames
    ]
    told = json.dumps({"size": config.size, "clips": of_clips} | machine_and_versions(), indent=1)
    sys.stdout.write(f"{told}\n")
    if config.out:
        Path(config.out).write_text(f"{told}\n")


def _measured(config: BenchGraftConfig, frames: int, device: str) -> dict[str, Any]:
    found = _timed(config, frames, device)
    if config.memory:
        found["training_bytes"] = [
            _trained(config, frames, loops, freeze, device)
            for freeze in _FREEZE
            for loops in config.loops
        ]
    return found


def _policy(config: BenchGraftConfig, frames: int, device: str) -> GraftPolicy:
    """As it is served: the transformer in bf16 on a GPU."""
    clips = config.clips(frames)
    with torch.device(device):
        vae = small_vae() if config.size == TINY else AutoencoderKLCogVideoX()
        backbone = Backbone(named_transformer(config.size), vae, named_scheduler())
    camera = TensorSpec("images.front", (clips.height, clips.width, 3), "uint8")
    actions = TensorSpec("action", (7,), "float32", labels=(*"abcdef", "gripper"))
    proprio = TensorSpec(PROPRIO, (7,), "float32")
    spec = PolicySpec((camera, proprio), actions, action_frame="of the base", control_period_s=0.2)
    options = GraftPolicyConfig(
        model=TINY,
        graft=GraftConfig(loops=max(config.loops)),
        video=clips,
        decoder=DecoderConfig(),
        action_horizon=_HORIZON,
        noise_level=100,
        text="learned",
        instructions=["do it"],
    )
    policy = GraftPolicy(spec, options, backbone).to(device).eval().requires_grad_(False)
    if device == "cuda":
        policy.graft.to(torch.bfloat16)
        policy.encoder.to(torch.bfloat16)
    return policy


def _in_bf16(device: str) -> AbstractContextManager[Any]:
    if device == "cpu":
        return nullcontext()
    return torch.autocast(device, torch.bfloat16, cache_enabled=False)


@torch.inference_mode()
def _timed(config: BenchGraftConfig, frames: int, device: str) -> dict[str, Any]:
    """Medians of passes and chunks at each K, visited in turn."""
    policy = _policy(config, frames, device)
    latents = torch.randn(1, *policy.latent_shape, device=device)
    task, level = torch.zeros(1, dtype=torch.int64, device=device), torch.tensor([100])
    level, noise = level.to(device), torch.zeros(1, _HORIZON, 7, device=device)
    seen = next(t for t in policy.spec.observations if t.name == policy.camera).shape
    observation = {policy.camera: torch.zeros(1, *seen, dtype=torch.uint8, device=device)}

    def one_pass(loops: int) -> object:
        with _in_bf16(device):
            return policy.graft(latents, policy.text(task), level, loops)

    def chunk(loops: int) -> Tensor:
        with _in_bf16(device):
            read = policy.read(policy.features(latents, task, loops), loops)
        return policy.to_actions(policy.sample(read, noise, _STEPS))

    calls = {
        (name, loops): _call(lambda make=make, loops=loops: make(loops), device)
        for loops in config.loops
        for name, make in (("pass", one_pass), ("chunk", chunk))
    }
    calls["latents", 0] = lambda: policy.latents(observation | {INSTRUCTION: task})
    times: dict[tuple[str, int], list[float]] = {key: [] for key in calls}
    for number in range(_WARM_UPS + config.repetitions):
        for key, call in calls.items():
            took = _milliseconds(call, device)
            if number >= _WARM_UPS:
                times[key].append(took)
    speed = _flops_per_s(device)
    rows: list[dict[str, Any]] = []
    for loops in config.loops:
        work = _flops(lambda loops=loops: one_pass(loops))
        told = {f"{name}_ms": _quartiles(times[name, loops]) for name in ("pass", "chunk")}
        floor = {"work_tflop": round(work / 1e12, 6), "floor_ms": round(1e3 * work / speed, 3)}
        rows.append({"loops": loops, **told, **floor})
    before = _quartiles(times["latents", 0])
    return {
        "frames": frames,
        "dtype": "float32" if device == "cpu" else "bfloat16",
        "product_tflop_per_s": round(speed / 1e12, 3),
        "latents_ms": before,
        "loops": rows,
        "largest_loops_at_10_hz": _largest(rows, before[1]),
    }


def _call(compute: Callable[[], object], device: str) -> Callable[[], object]:
    """On a GPU as one captured graph, which its first calls make ready for."""
    if device == "cpu":
        return compute
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        compute()
    return captured.replay


def _milliseconds(call: Callable[[], object], device: str) -> float:
    began = perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (perf_counter() - began)


def _quartiles(times: list[float]) -> list[float]:
    """25 %, median, 75 %."""
    return [round(float(q), 3) for q in np.percentile(times, (25, 50, 75))]


def _flops(compute: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops()


def _flops_per_s(device: str) -> float:
    """Of one large product, the fastest of several."""
    side, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    a = torch.randn(side, side, device=device, dtype=dtype)
    times = [_milliseconds(lambda: a @ a, device) for _ in range(_WARM_UPS + 5)]
    return 2 * side**3 / (1e-3 * min(times[_WARM_UPS:]))


def _largest(rows: list[dict[str, Any]], before_ms: float) -> int | None:
    """The most loops whose chunk, latents included, takes a control period at most, by the line
    through the medians; None where one K is no line, or time does not grow with K."""
    if len(rows) < 2:
        return None
    medians = [row["chunk_ms"][1] for row in rows]
    slope, rest = np.polyfit([row["loops"] for row in rows], medians, 1)
    most = (_PERIOD_MS - before_ms - rest) // slope if slope > 0 else None
    return None if most is None else int(np.clip(most, 0, _MOST_LOOPS))


def _grafted(config: BenchGraftConfig, frames: int, options: GraftConfig, device: str) -> Graft:
    """What is frozen in bf16, but on a CPU."""
    clips = config.clips(frames)
    sides = (clips.height // _SHRINK, clips.width // _SHRINK)
    with torch.device(device):
        transformer = named_transformer(config.size)
        keep_positions(transformer, clips.latent_frames, *sides)
        grafted = graft(transformer, options)
    if device == "cuda":
        for value in grafted.transformer.parameters():
            if not value.requires_grad:
                value.data = value.data.to(torch.bfloat16)
    return grafted


def _inputs(config: BenchGraftConfig, frames: int, grafted: Graft, device: str) -> Any:
    clips, sizes = config.clips(frames), grafted.transformer.config
    sides = (clips.height // _SHRINK, clips.width // _SHRINK)
    latents = torch.randn(1, clips.latent_frames, _CHANNELS, *sides, device=device)
    words, width = sizes["max_text_seq_length"], sizes["text_embed_dim"]
    text = torch.randn(1, words, width, device=device)
    return latents, text, torch.tensor([100], device=device)


def _trained(
    config: BenchGraftConfig, frames: int, loops: int, freeze: str, device: str
) -> dict[str, Any]:
    """Peak bytes of a training step, and those expected, by how it checkpoints; null for a peak
    that is beyond the GPU, or of a CPU."""
    row: dict[str, Any] = {"loops": loops, "freeze": freeze}
    for checkpointing in _CHECKPOINTS:
        grafted = _grafted(config, frames, GraftConfig(loops=loops, freeze=freeze), device).train()
        row[f"{checkpointing}_expected"] = _expected(config, frames, grafted, checkpointing).total
        row[checkpointing] = None
        try:
            _step(grafted, _inputs(config, frames, grafted, device), loops, checkpointing, device)
            if device == "cuda":
                row[checkpointing] = torch.cuda.max_memory_allocated()
        except torch.OutOfMemoryError:
            pass
        del grafted
    return row


def _step(grafted: Graft, inputs: Any, loops: int, checkpointing: str, device: str) -> None:
    optimizer = torch.optim.AdamW(list(grafted.trained().values()), fused=True)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with torch.autocast(device, torch.bfloat16):
        said = grafted(*inputs, loops=loops, checkpointing=checkpointing)
        said.sample.float().square().mean().backward()
    optimizer.step()


def _expected(
    config: BenchGraftConfig, frames: int, grafted: Graft, checkpointing: str, gpus: int = 1
) -> TrainingMemory:
    """Of one clip at all of its loops, in bf16, weights spread over so many GPUs."""
    clips = config.clips(frames)
    trained = sum(p.numel() for p in grafted.trained().values())
    sides = (clips.height // _SHRINK, clips.width // _SHRINK)
    work = Work(
        transformer={k: v for k, v in dict(grafted.transformer.config).items() if k[0] != "_"},
        graft=grafted.config,
        frozen=sum(p.numel() for p in grafted.parameters()) - trained,
        trained=trained,
        latents=(clips.latent_frames, _CHANNELS, *sides),
        rows=1,
        passes=[grafted.config.loops],
        precision=BF16,
        checkpointing=checkpointing,
        shares=gpus,
    )
    return training_memory(work)


def _estimated(config: BenchGraftConfig, frames: int) -> dict[str, Any]:
    """Work of a pass and memory of a training step, from shapes alone."""
    rows: list[dict[str, Any]] = []
    for freeze in _FREEZE:
        for loops in config.loops:
            options = GraftConfig(loops=loops, freeze=freeze)
            grafted = _grafted(config, frames, options, "meta")
            expected = {
                f"{mode}_gib": round(_expected(config, frames, grafted, mode).total / 2**30, 2)
                for mode in _CHECKPOINTS
            }
            rows.append({"freeze": freeze, "loops": loops, **expected})
    grafted = _grafted(config, frames, GraftConfig(loops=max(config.loops)), "meta")
    inputs = _inputs(config, frames, grafted, "meta")
    work = {
        loops: round(_flops(lambda loops=loops: grafted(*inputs, loops=loops)) / 1e12, 2)
        for loops in config.loops
    }
    whole = _grafted(config, frames, GraftConfig(loops=max(config.loops), freeze="all"), "meta")
    shared = {
        f"{gpus}_gpus_gib": round(_expected(config, frames, whole, "nested", gpus).total / 2**30, 2)
        for gpus in (1, 2, 4, 8)
    }
    shared_row = {"freeze": "all", "loops": max(config.loops), "checkpoint": "nested", **shared}
    return {"frames": frames, "work_tflop": work, "memory": rows, "sharded": shared_row}


COMMAND = Command(
    name="bench_graft",
    folder="bench_graft",
    summary="what a looped CogVideoX costs in time and memory.",
    examples=(
        "python scripts/bench_graft.py out=graft.json",
        "python scripts/bench_graft.py size=tiny",
        "python scripts/bench_graft.py estimate=true frames=[9,49]",
    ),
)

if __name__ == "__main__":
    run_command(COMMAND, BenchGraftConfig, run)
