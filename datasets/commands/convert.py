"""policy-data convert SRC DST: a data set of another format into a store, a store into another
format, or a store into one with other frames."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from loopdit.command import Command, option
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.formats.conversion_options import LEROBOT, STORE
from loopdit.datasets.formats.convert import Converted, convert
from loopdit.datasets.formats.importing import AUTO
from loopdit.datasets.formats.lerobot_info import CODECS
from loopdit.datasets.formats.registry import FORMATS
from loopdit.datasets.frame_codecs import FRAMES, RAW, check_frames
from loopdit.errors import ConfigError
from loopdit.progress import Progress
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-data convert",
    folder="data_convert",
    summary=SUBCOMMANDS["convert"],
    examples=(
        "policy-data convert bridge/1.0.0 bridge.zarr mapping=bridge",
        "policy-data convert lift.hdf5 lift.zarr format=robomimic frames=zstd",
        "policy-data convert lift.zarr lift_lerobot to=lerobot codec=h264",
        "policy-data convert lift.zarr s3://bucket/lift.zarr frames=jpeg",
    ),
)


@dataclass(frozen=True)
class ConvertConfig:
    """What is converted into what."""

    source: str = option("???", "file, folder or store to convert; the first word is it, too")
    target: str = option("???", "what to write, where nothing is yet; the second word is it, too")
    format: str = option(
        AUTO, f"the source's format: {AUTO} (by its content), {STORE}, {', '.join(FORMATS)}"
    )
    to: str = option("", f"the target's format: {', '.join(FORMATS)}; empty: an episode store")
    mapping: str = option(
        AUTO,
        "which keys are which camera, proprio and action: auto (by what the data says of itself), "
        "a name in datasets/mappings, or a YAML file",
    )
    rate_hz: float = option(0.0, "control steps a second; 0: as the data or the mapping says")
    frames: str = option(RAW, f"how the new store keeps frames: {', '.join(FRAMES)}")
    jpeg_quality: int = option(95, "frames=jpeg: from 1 to 100")
    codec: str = option(
        AUTO,
        f"to={LEROBOT}: how frames are encoded: av1, h264, png (lossless, many times larger); "
        f"auto: as the data set had them if it came from LeRobot, otherwise av1",
    )
    skip_bad: bool = option(False, "leave bad episodes out and name them, instead of stopping")

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("format", self.format, (AUTO, STORE, *FORMATS)),
            ("to", self.to, ("", STORE, *FORMATS)),
            ("codec", self.codec, CODECS),
        ):
            if value not in allowed:
                raise ConfigError(f"{name}={value} is none of {', '.join(filter(None, allowed))}.")
        if self.rate_hz < 0:
            raise ConfigError(f"rate_hz={self.rate_hz} is negative.")
        check_frames(self.frames, self.jpeg_quality)


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data convert`; `argv` without the command's name."""
    run_subcommand(COMMAND, ConvertConfig, run, argv, places=("source", "target"))


def run(config: ConvertConfig) -> None:
    """Convert, and say what was lost. Raises what `convert` raises."""
    with Progress("converting", 1.0) as progress:

        def report(done: int, total: int, note: str) -> None:
            progress.update(done / max(1, total), f"{done}/{total} episodes, {note}")

        converted = convert(
            config.source,
            config.target,
            format=config.format,
            mapping=config.mapping,
            to=config.to,
            frames=config.frames,
            jpeg_quality=config.jpeg_quality,
            codec=config.codec,
            rate_hz=config.rate_hz,
            skip_bad=config.skip_bad,
            progress=report,
        )
    sys.stdout.write("\n".join(_told(config, converted)) + "\n")


def _told(config: ConvertConfig, converted: Converted) -> list[str]:
    count, steps, already = converted.episodes, converted.steps, converted.already
    done = f"{count} episodes, {steps} steps."
    if already:
        done = f"{already} episodes were there already; {count} more, {steps} steps."
    return [
        f"{config.target}: {done}",
        *(f"left out: {error}" for error in converted.skipped),
        *(f"note: {note}" for note in converted.notes),
        *(f"lost: {phrase}" for phrase in converted.lost),
        *_next(config, converted),
    ]


def _next(config: ConvertConfig, converted: Converted) -> list[str]:
    """What to look at, and then to do, with a store that was made of foreign data."""
    if not converted.imported or config.to not in ("", STORE):
        return []
    return [f"next: policy-data view {config.target}, then policy-train data={config.target}"]
