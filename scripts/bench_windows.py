"""`make bench-data`: how fast random training windows are read, beside a raw memory map and others.

A window is 2 frames of 2 cameras of 128x128 pixels, 2 proprio vectors and 16 actions; a batch has
64. Every repetition runs each way for a short block, one after the other, in this process, so that
other work on the machine slows all alike; a ratio is taken within a repetition. All data are in
the page cache. Writes OUT/bench_windows.json and the table in docs/data.md.

    python scripts/bench_windows.py [--out FOLDER] [--repetitions N] [--lerobot PYTHON] [--no-page]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rendered_episodes import CAMERAS, EPISODES, RATE, SIZE, SPEC, STEPS, rendered_episode

from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.formats.convert import convert
from loopdit.datasets.formats.video import VideoEncoder
from loopdit.datasets.loader import Batches
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.store import ACTION, Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.windows import WindowSampler
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.whole_file import whole_file

ROOT = Path(__file__).parents[1]
BATCH, HISTORY, HORIZON = 64, 2, 16
MEMMAP = "raw memory map (np.memmap, fancy-indexed)"
LEROBOT = "LeRobotDataset 0.4.4 (PyAV, AV1), in its own process"
Read = Callable[[np.ndarray], object]  # windows (B,) by their step's number


def main() -> None:
    """Measure, write the records, show the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("outputs/bench-data"))
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--lerobot", type=Path, default=ROOT / ".suites/lerobot/bin/python")
    parser.add_argument("--no-page", action="store_true")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        sys.stdout.write(json.dumps(_memory(Path(options.memory[0]), int(options.memory[1]))))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    facts = machine_and_versions()
    facts["versions"] |= {name: version(name) for name in ("av", "pillow")}
    with TemporaryDirectory(dir=options.out) as folder, ExitStack() as stack:
        rates = _measure(Path(folder), options, stack)
        memory = {
            f"{episodes} episodes": json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--memory", f"{folder}/raw", str(episodes)],
                    check=True,
                    capture_output=True,
                ).stdout
            )
            for episodes in (EPISODES // 10, EPISODES)
        }
    results = {"rates": rates, "memory": memory, **facts}
    with whole_file(options.out / "bench_windows.json") as aside:
        aside.write_text(json.dumps(results, indent=1) + "\n")
    table = _table(results)
    sys.stdout.write(table)
    if not options.no_page:
        _write_page(table)


def _measure(folder: Path, options: argparse.Namespace, stack: ExitStack) -> dict[str, list[float]]:
    """Windows a second of each arm, a number for each repetition; of LeRobot's for every fifth."""
    episodes = [rendered_episode(seed) for seed in range(EPISODES)]
    for frames in ("raw", "zstd", "jpeg"):
        writer = EpisodeWriter.create(folder / frames, SPEC, {}, frames=frames)
        for episode in episodes:
            writer.append(episode)
    store = EpisodeStore.open(folder / "raw")
    cache = DecodedCache(folder / "cache", 4 << 30)
    ours = _sampler(store)
    arms: dict[str, Callable[[int], object]] = {}  # each reads the batch of a step
    random = np.random.default_rng(0)

    def add(name: str, read: Read) -> None:
        arms[name] = lambda _: read(random.integers(0, EPISODES * STEPS, BATCH))

    add(MEMMAP, _memmap(folder, episodes))
    arms["loopdit, as they are asked for"] = ours.batch
    for workers in (1, 2):
        ahead = stack.enter_context(Batches(_sampler(store), 0, workers))
        arms[f"loopdit, read ahead by {workers} thread{'s' * (workers - 1)}"] = _next_of(ahead)
    for frames, what in (("zstd", "zstd frames"), ("jpeg", "JPEG frames")):
        opened = EpisodeStore.open(folder / frames)
        sampler = _sampler(opened, cache)
        sampler.prepare(lambda done, total: None, workers=2)
        arms[f"loopdit, {what}, decoded into the cache"] = sampler.batch
    none = DecodedCache(folder / "no cache", 0)
    arms["loopdit, JPEG frames, decoded at each use"] = _sampler(opened, none).batch
    add("zarr, a slice for each window", _zarr(store))
    add("PyAV, MP4 (H.264, every 2nd frame a key frame)", _video(folder, episodes))
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        _rate(arm, 0.5)  # every page and decoded file is there before the clock counts
    steps = ours.windows // BATCH + 1
    lerobot = options.lerobot.is_file()
    if lerobot:
        convert(folder / "raw", folder / "lerobot", to="lerobot")
    for repetition in range(options.repetitions):
        for name, arm in arms.items():
            rates[name].append(_rate(arm, 0.15, repetition * steps))
        if lerobot and repetition % max(1, options.repetitions // 4) == 0:
            rates.setdefault(LEROBOT, []).append(_lerobot(folder / "lerobot", options.lerobot))
        sys.stdout.write(f"repetition {repetition + 1} of {options.repetitions}\n")
        sys.stdout.flush()
    return rates


def _rate(arm: Callable[[int], object], seconds: float, first: int = 0) -> float:
    started, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or not count:
        arm(first + count)
        count += 1
    return count * BATCH / passed


def _next_of(batches: Batches) -> Callable[[int], object]:
    return lambda _: next(batches)


def _sampler(store: EpisodeStore, cache: DecodedCache | None = None) -> WindowSampler:
    return WindowSampler(store, HORIZON, BATCH, seed=0, history=HISTORY, cache=cache)


def _rows(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps of observations (B, O) and actions (B, H), inside the window's episode."""
    first = windows // STEPS * STEPS
    past = np.maximum(windows[:, None] + np.arange(1 - HISTORY, 1), first[:, None])
    ahead = np.minimum(windows[:, None] + np.arange(HORIZON), first[:, None] + STEPS - 1)
    return past, ahead


def _memmap(folder: Path, episodes: Sequence[Episode]) -> Read:
    frames: list[np.ndarray] = []
    for name in CAMERAS:
        with open(folder / f"{name}.all", "wb") as file:
            for episode in episodes:
                file.write(episode.observations[name].data)
        shape = (EPISODES * STEPS, SIZE, SIZE, 3)
        frames.append(np.memmap(folder / f"{name}.all", np.uint8, "r", shape=shape))
    proprio = np.concatenate([episode.observations["proprio"] for episode in episodes])
    actions = np.concatenate([episode.actions for episode in episodes])

    def read(windows: np.ndarray) -> object:
        past, ahead = _rows(windows)
        return [images[past] for images in frames], proprio[past], actions[ahead]

    return read


def _zarr(store: EpisodeStore) -> Read:
    import zarr

    group: Any = zarr.open_group(str(store.path), mode="r")
    arrays = [
        {name: group[f"episodes/{record.id}/{name}"] for name in (*CAMERAS, "proprio", ACTION)}
        for record in store.episodes
    ]

    def read(windows: np.ndarray) -> object:
        found: list[list[np.ndarray]] = []
        for episode, step in zip(*np.divmod(windows, STEPS), strict=True):
            own = arrays[episode]
            past = slice(max(0, step - 1), step + 1)
            found.append([own[name][past] for name in (*CAMERAS, "proprio")])
            found[-1].append(own[ACTION][step : step + HORIZON])
        return found

    return read


def _video(folder: Path, episodes: Sequence[Episode]) -> Read:
    import av

    streams: list[tuple[Any, Any]] = []
    for name in CAMERAS:
        encoder = VideoEncoder(folder / f"{name}.mp4", "h264", Fraction(RATE))
        for episode in episodes:
            encoder.add(episode.observations[name])
        encoder.close()
        container: Any = av.open(str(folder / f"{name}.mp4"))
        container.streams.video[0].thread_count = 1
        streams.append((container, container.streams.video[0]))

    def read_pair(container: Any, stream: Any, first: int, last: int) -> list[np.ndarray]:
        container.seek(int(first / RATE / stream.time_base), stream=stream)
        found: list[np.ndarray] = []
        for frame in container.decode(stream):
            step = round(frame.pts * stream.time_base * RATE)
            if step >= first:
                found.append(frame.to_ndarray(format="rgb24"))
            if step >= last:
                break
        return found

    def read(windows: np.ndarray) -> object:
        past, _ = _rows(windows)
        return [[read_pair(*stream, *row) for row in past.tolist()] for stream in streams]

    return read


def _lerobot(data: Path, python: Path) -> float:
    """Windows a second that LeRobot's own reader gives, in its environment and process."""
    script = ROOT / "scripts" / "lerobot_windows.py"
    done = subprocess.run(
        [python, script, data, "--seconds", "5"], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])["windows_per_s"]


def _memory(path: Path, episodes: int) -> dict[str, int]:
    """MiB of this process's own memory, and of the page cache it has mapped, after 300 batches."""
    sampler = WindowSampler(
        [DataPart(EpisodeStore.open(path), range(episodes))], HORIZON, BATCH, 0, history=HISTORY
    )
    with Batches(sampler, 0, workers=2) as batches:
        for _ in range(300):
            next(batches)
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return {"RssAnon MiB": kib["RssAnon"] >> 10, "RssFile MiB": kib["RssFile"] >> 10}


def _table(results: dict[str, Any]) -> str:
    """The page's section, without its heading."""
    rates: dict[str, list[float]] = results["rates"]
    count = len(rates[MEMMAP])
    lines = [
        f"`make bench-data`: batches of {BATCH} random windows, each {HISTORY} frames of "
        f"{len(CAMERAS)} cameras at {SIZE}x{SIZE} and {HORIZON} actions, from {EPISODES} episodes "
        f"of {STEPS} steps in the page cache. Median and quartiles of {count} repetitions, all "
        f"ways in turn in each; a ratio is taken within a repetition.",
        "",
        "| way | windows/s | of the raw memory map |",
        "|---|---:|---:|",
    ]
    for name, values in rates.items():
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
        raws = rates[MEMMAP] if len(values) == count else [float(np.median(rates[MEMMAP]))]
        ratios = [own / raw for own, raw in zip(values, raws * len(values), strict=False)]
        few, ratio, many = np.quantile(ratios, (0.25, 0.5, 0.75))
        shown = f"{ratio:.2g} ({few:.2g} to {many:.2g})" if name != MEMMAP else "1"
        lines.append(f"| {name} | {median:,.0f} ({low:,.0f} to {high:,.0f}) | {shown} |")
    lines += ["", "Memory after 300 batches read by 2 workers:", ""]
    lines += ["| data | own (RssAnon) | mapped page cache (RssFile) |", "|---|---:|---:|"]
    lines += [
        f"| {data} | {found['RssAnon MiB']} MiB | {found['RssFile MiB']} MiB |"
        for data, found in results["memory"].items()
    ]
    versions = results["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("numpy", "zarr", "av", "pillow"))
    commit = (results["commit"] or "no commit")[:12]
    when = time.strftime("%Y-%m-%d")
    lines += ["", f"{describe_machine(results)}; {named}; {commit}, {when}.", ""]
    return "\n".join(lines)


def _write_page(table: str) -> None:
    """Put the table between its marks in docs/data.md, with its section where there is none."""
    page = ROOT / "docs" / "data.md"
    start, end = "<!-- make bench-data -->\n", "<!-- end of make bench-data -->\n"
    text = page.read_text() if page.exists() else "# Data\n"
    if start not in text:
        text = f"{text.rstrip()}\n\n## Reading windows\n\n{start}{end}"
    before, _, rest = text.partition(start)
    with whole_file(page) as aside:
        aside.write_text(f"{before}{start}{table}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
