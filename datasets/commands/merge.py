"""policy-data merge A.zarr B.zarr out=C.zarr: one store of the episodes of several."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from loopdit.command import Command, option
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.frame_codecs import FRAMES
from loopdit.datasets.merging import (
    DUPLICATES,
    REFUSE,
    provenance_of,
    require_one_spec,
    without_duplicates,
    write_copy,
)
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-data merge",
    folder="data_merge",
    summary=SUBCOMMANDS["merge"],
    examples=(
        "policy-data merge monday.zarr tuesday.zarr out=week.zarr",
        "policy-data merge old.zarr new.zarr out=both.zarr duplicates=drop frames=zstd",
    ),
)


@dataclass(frozen=True)
class MergeConfig:
    """Which stores, and where to."""

    stores: list[str] = option([], "the stores, two or more; words without a name are these, too")
    out: str = option("???", "the new store: a folder or a URL where nothing is yet")
    duplicates: str = option(
        REFUSE, f"an episode that is in two of them: {', '.join(DUPLICATES)} (drop the second)"
    )
    frames: str = option(
        "", f"how the new store keeps frames: {', '.join(FRAMES)}; empty: as the first store"
    )

    def __post_init__(self) -> None:
        if len(self.stores) < 2:
            raise ConfigError(
                f"merge takes two stores or more, and was given {len(self.stores)}: "
                f"policy-data merge A.zarr B.zarr out=C.zarr."
            )


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data merge`; `argv` without the command's name."""
    run_subcommand(COMMAND, MergeConfig, run, argv, places=(), rest="stores")


def run(config: MergeConfig) -> None:
    """Merge. Raises SpecMismatch where the stores' specs differ, StoreError for an episode that
    is in two of them or damaged, and where the new store cannot be written."""
    stores = [EpisodeStore.open(path) for path in config.stores]
    require_one_spec(stores)
    chosen = without_duplicates(stores, config.duplicates)
    settings = {"duplicates": config.duplicates, "frames": config.frames or stores[0].frames}
    provenance = provenance_of(COMMAND.name, chosen, settings)
    count = write_copy(config.out, chosen, provenance, config.frames)
    dropped = sum(len(store.episodes) for store in stores) - count
    left_out = f"; {dropped} that were in two stores were left out" if dropped else ""
    sys.stdout.write(f"{config.out}: {count} episodes of {len(stores)} stores{left_out}.\n")
