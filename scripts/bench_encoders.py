"""What each image encoder costs: milliseconds forward and forward + backward, tokens, parameters.

One thread, float32, random weights, which cost what trained ones do. All encoders take turns in one
process, so that other work on the machine slows all alike; `ratio` is to the keypoint encoder's
call beside it in the same round, its median, with the quartiles in brackets. The backbones are of
the shapes of facebook/dinov2-small and microsoft/resnet-18, frozen: their backward goes through the
projection alone. Writes OUT/bench_encoders.json.

    python scripts/bench_encoders.py [--out FOLDER] [--sizes 64 128] [--batches 64 1] [--rounds N]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from loopdit.machine import describe_machine, machine_and_versions
from loopdit.policy.encoders.images import ImageEncoder, make_encoder
from loopdit.whole_file import whole_file

WIDTH = 128
KINDS = ("keypoints", "pooled", "pooled:4", "patches", "patches:8")
BACKBONES: dict[str, dict[str, Any]] = {
    "pretrained:facebook/dinov2-small": {
        "model_type": "dinov2",
        "hidden_size": 384,
        "num_attention_heads": 6,
        "image_size": 518,
        "patch_size": 14,
    },
    "pretrained:microsoft/resnet-18": {
        "model_type": "resnet",
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
        "layer_type": "basic",
    },
}
_BACKBONE_ROUNDS = 5  # at most: a call of theirs takes seconds
_CALLS_AT_ONE = 20  # timed together at batch 1, where one takes less than the scheduler's slice


def main() -> None:
    """Measure, write the record, show the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("outputs/bench-encoders"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    facts = machine_and_versions()
    rows = [
        row
        for size in options.sizes
        for batch in options.batches
        for row in _measure(size, batch, options.rounds)
    ]
    with whole_file(options.out / "bench_encoders.json") as aside:
        aside.write_text(json.dumps({"rows": rows, **facts}, indent=1) + "\n")
    sys.stdout.write(f"{_table(rows)}\n{describe_machine(facts)}\n")


def _measure(size: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each encoder, of frames of `size` pixels."""
    torch.manual_seed(0)
    frames = 2 * torch.rand(batch, 3, size, size) - 1
    encoders = {kind: make_encoder(kind, WIDTH, size) for kind in KINDS}
    encoders |= {
        kind: make_encoder(kind, WIDTH, size, configuration=shape)
        for kind, shape in BACKBONES.items()
    }
    runs = {"forward": _forward, "training": _forward_backward}
    seconds: dict[tuple[str, str], list[float]] = {
        (kind, run): [] for kind in encoders for run in runs
    }
    for round_ in range(rounds + 1):
        kinds = [*encoders] if round_ <= _BACKBONE_ROUNDS else [*KINDS]
        for kind in kinds if round_ % 2 else reversed(kinds):
            calls = _CALLS_AT_ONE if batch == 1 and kind in KINDS else 1
            for name, run in runs.items():
                began = time.perf_counter()
                for _ in range(calls):
                    run(encoders[kind], frames)
                if round_:  # the first warms up
                    seconds[kind, name].append((time.perf_counter() - began) / calls)
    return [
        {
            "encoder": kind,
            "size": size,
            "batch": batch,
            "tokens": encoder.tokens,
            "parameters": sum(p.numel() for p in encoder.parameters()),
            **{f"{run}_s": seconds[kind, run] for run in runs},
            **{
                f"{run}_ratios": [
                    own / reference
                    for own, reference in zip(
                        seconds[kind, run], seconds[KINDS[0], run], strict=False
                    )
                ]
                for run in runs
            },
        }
        for kind, encoder in encoders.items()
    ]


def _forward(encoder: Callable[[torch.Tensor], torch.Tensor], frames: torch.Tensor) -> None:
    with torch.inference_mode():
        encoder(frames)


def _forward_backward(encoder: ImageEncoder, frames: torch.Tensor) -> None:
    encoder.zero_grad()
    encoder(frames).square().mean().backward()


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| encoder | px | batch | tokens | parameters | forward ms | ratio | + backward ms | ratio "
        "| n |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        told: list[str] = []
        for run in ("forward", "training"):
            ratios = row[f"{run}_ratios"]
            low, middle, high = statistics.quantiles(ratios, n=4)
            told.append(f"{1e3 * statistics.median(row[f'{run}_s']):.2f}")
            told.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")
        lines.append(
            f"| {row['encoder']} | {row['size']} | {row['batch']} | {row['tokens']} | "
            f"{row['parameters']:,} | {' | '.join(told)} | {len(row['forward_s'])} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
