"""Measure ways to keep frames: size, writing, decoding and reading single frames at random.

    python scripts/bench_layouts.py [BRIDGE [OUT]]

Frames are one camera's of ten demonstrations of `lift` at 128x128, end to end, and, where the
folder BRIDGE has an RLDS data set, those of its real robot at their own size. In every repetition
each layout is written, decoded and read once, in an order that changes, so that other work on the
machine slows all alike. Nothing is synced: that costs the same for all. Prints the tables of
docs/data.md, and writes OUT (outputs/layouts.json) with every number.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, ZstdCodec

from loopdit.datasets.formats import rlds
from loopdit.datasets.frame_codecs import JPEG, RAW, ZSTD, encode_jpegs
from loopdit.datasets.tensor_files import Tensor, encode_array, read_array
from loopdit.datasets.zarr_files import Buffer, zstd_files
from loopdit.envs.registry import make_env
from loopdit.eval.demonstration import demonstrate
from loopdit.eval.perturb import NoiseConfig
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.whole_file import require_folder, whole_file

REPETITIONS = 9
RANDOM_READS = 24
MEASURES = ("write MB/s", "decode MB/s", "random frames/s")
MIB = 1 << 20
BASE = "zstd 3, chunks of 4 MiB"


@dataclass(frozen=True)
class Layout:
    """A way to keep frames (T, H, W, 3) in a folder."""

    name: str
    write: Callable[[Path, np.ndarray], None]
    decode: Callable[[Path, np.ndarray], np.ndarray]
    frame: Callable[[Path, np.ndarray, int], np.ndarray]


def of_a_store(
    name: str, encoding: str, encode: Callable[[np.ndarray], dict[str, Buffer]]
) -> Layout:
    """One that our store can read."""

    def read(folder: Path, frames: np.ndarray, steps: list[int] | None) -> np.ndarray:
        tensor = replace(_tensor(frames), encoding=encoding)
        return read_array(lambda file: _mapped(folder / file), tensor, steps)

    def write(folder: Path, frames: np.ndarray) -> None:
        for file, content in encode(frames).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)

    return Layout(
        name,
        write,
        lambda folder, frames: np.array(read(folder, frames, None)),
        lambda folder, frames, step: read(folder, frames, [step])[0],
    )


def of_zarr(name: str, frames_a_chunk: int, level: int | None, sharded: bool) -> Layout:
    """One through the zarr library, as anyone would write it."""

    def write(folder: Path, frames: np.ndarray) -> None:
        zarr.create_array(
            folder / "a",
            data=frames,
            chunks=(min(frames_a_chunk, len(frames)), *frames.shape[1:]),
            shards=frames.shape if sharded else None,
            serializer=BytesCodec(endian=None),
            compressors=None if level is None else ZstdCodec(level=level, checksum=True),
        )

    def opened(folder: Path) -> Any:
        return zarr.open_array(folder / "a", mode="r")

    return Layout(
        name,
        write,
        lambda folder, _frames: opened(folder)[:],
        lambda folder, _frames, step: opened(folder)[step],
    )


def zstd_layout(level: int, chunk_bytes: int, chunk: str) -> Layout:
    """Ours, at one level and size of a chunk."""

    def encode(frames: np.ndarray) -> dict[str, Buffer]:
        files = zstd_files(frames, level, chunk_bytes)
        return {f"a/{name}": content for name, content in files.items()}

    return of_a_store(f"zstd {level}, chunks of {chunk}", ZSTD, encode)


def jpeg_layout(quality: int, subsampling: int, colour: str) -> Layout:
    """Ours, at one quality, with the colour at full (4:4:4) or half (4:2:0) resolution."""

    def encode(frames: np.ndarray) -> dict[str, Buffer]:
        jpegs = encode_jpegs(frames, quality, subsampling)
        return encode_array(jpegs, replace(_tensor(frames), encoding=JPEG), quality)[0]

    return of_a_store(f"JPEG {quality}, {colour}", JPEG, encode)


def layouts(step_bytes: int) -> list[Layout]:
    """All that are compared; frames have `step_bytes`."""
    chunks = {"1 frame": step_bytes, "1 MiB": MIB, "4 MiB": 4 * MIB, "16 MiB": 16 * MIB}
    return [
        of_a_store("raw, one chunk", RAW, _raw_files),
        *(zstd_layout(3, size, name) for name, size in chunks.items()),
        *(zstd_layout(level, 4 * MIB, "4 MiB") for level in (1, 6, 9)),
        jpeg_layout(85, 0, "4:4:4"),
        jpeg_layout(95, 0, "4:4:4"),
        jpeg_layout(95, 2, "4:2:0"),
        of_zarr("zarr library: raw, chunks of 16 frames", 16, None, sharded=False),
        of_zarr("zarr library: zstd 3, chunks of 16 frames", 16, 3, sharded=False),
        of_zarr("zarr library: raw, one shard of 1-frame chunks", 1, None, sharded=True),
        of_zarr("zarr library: zstd 3, one shard of 1-frame chunks", 1, 3, sharded=True),
    ]


def _raw_files(frames: np.ndarray) -> dict[str, Buffer]:
    return encode_array(frames, _tensor(frames), jpeg_quality=0)[0]


def measure(frames: np.ndarray, console: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """By layout: each of MEASURES over the repetitions, size as a part of raw, PSNR in dB."""
    random = np.random.default_rng(0)
    compared = layouts(frames[:1].nbytes)
    results: dict[str, dict[str, Any]] = {
        layout.name: {name: [] for name in MEASURES} for layout in compared
    }
    for repetition in range(REPETITIONS):
        for number in random.permutation(len(compared)):
            layout = compared[number]
            result = results[layout.name]
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                write_s = _seconds(lambda: layout.write(folder, frames))  # noqa: B023
                result["write MB/s"].append(frames.nbytes / 1e6 / write_s)
                start = time.perf_counter()
                decoded = layout.decode(folder, frames)
                result["decode MB/s"].append(frames.nbytes / 1e6 / (time.perf_counter() - start))
                steps = random.integers(len(frames), size=RANDOM_READS).tolist()
                start = time.perf_counter()
                for step in steps:
                    layout.frame(folder, frames, step)
                result["random frames/s"].append(RANDOM_READS / (time.perf_counter() - start))
                files = [file for file in folder.rglob("*") if file.is_file()]
                result["files"] = len(files)
                result["size"] = sum(file.stat().st_size for file in files) / frames.nbytes
                result["psnr_db"] = _psnr(decoded, frames)
        console(f"{repetition + 1} of {REPETITIONS}")
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: the median over the repetitions and, as other work slows all layouts alike, the
    median of its ratio to `BASE` within a repetition, with the middle half of those ratios."""
    rows = [
        f"| layout | size, of raw | files | {' | '.join(MEASURES)} | PSNR |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        speeds = [_speed(result[measure], results[BASE][measure]) for measure in MEASURES]
        psnr = "exact" if result["psnr_db"] is None else f"{result['psnr_db']:.1f} dB"
        rows.append(
            f"| {name} | {result['size']:.3f} | {result['files']} | {' | '.join(speeds)} | {psnr} |"
        )
    return "\n".join(rows)


def rendered_frames() -> np.ndarray:
    """One camera's frames (T, 128, 128, 3) of ten demonstrations of `lift`."""
    env = make_env("lift", image_size=128)
    camera = env.policy_spec.cameras[0].name
    found = [demonstrate(env, seed, NoiseConfig(), hold_steps=3) for seed in range(10)]
    env.close()
    return np.concatenate([e.observations[camera] for e in found if e is not None])


def bridge_frames(path: Path) -> np.ndarray:
    """The frames of the first camera of an RLDS data set with Bridge's feature names."""
    data = rlds.open(path)
    episodes = [data.episode(index) for index in range(len(data))]
    return np.concatenate([episode.steps["observation/image_0"] for episode in episodes])


def _tensor(frames: np.ndarray) -> Tensor:
    return Tensor("a", frames.shape, frames.dtype)


def _mapped(file: Path) -> np.ndarray | None:
    return np.memmap(file, np.uint8, mode="r") if file.exists() else None


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _psnr(decoded: np.ndarray, frames: np.ndarray) -> float | None:
    """None where they are equal."""
    error = float(np.mean((decoded.astype(np.float32) - frames) ** 2))
    return 10 * np.log10(255**2 / error) if error else None


def _speed(values: list[float], base: list[float]) -> str:
    ratios = np.quantile(np.array(values) / np.array(base), (0.25, 0.5, 0.75))
    low, median, high = (f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2f}" for ratio in ratios)
    return f"{np.median(values):,.0f}: {median}x [{low}, {high}]"


def main() -> None:
    """Measure, print the tables, write the record."""
    bridge = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "outputs/layouts.json")
    require_folder(out.parent)
    facts = machine_and_versions()
    facts["versions"] |= {name: version(name) for name in ("numcodecs", "pillow")}
    frames = {"lift, rendered": rendered_frames()}
    if bridge is not None:
        frames["bridge, real"] = bridge_frames(bridge)
    record: dict[str, Any] = {**facts, "repetitions": REPETITIONS, "data": {}}
    for name, taken in frames.items():
        results = measure(taken, lambda text: print_error(f"{name}: {text}"))  # noqa: B023
        record["data"][name] = {"shape": taken.shape, "layouts": results}
        steps, height, width, _ = taken.shape
        sys.stdout.write(f"\n{name}: {steps} frames of {height}x{width}\n\n{table(results)}\n")
    sys.stdout.write(
        f"\n{describe_machine(facts)}; {REPETITIONS} repetitions, "
        f"{RANDOM_READS} random frames in each.\n"
    )
    with whole_file(out) as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n")


def print_error(text: str) -> None:
    """Progress, beside the tables."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
