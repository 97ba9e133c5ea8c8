"""policy-data split S.zarr out=DIR: several stores of the episodes of one, each episode in one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopdit.command import Command, option
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.commands.one_store import STORE_HELP
from loopdit.datasets.formats.new_target import new_target
from loopdit.datasets.merging import Chosen, provenance_of, write_copy
from loopdit.datasets.remote_store import is_address
from loopdit.datasets.splitting import Parts, by_instruction, by_outcome, by_shares
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError, StoreError
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-data split",
    folder="data_split",
    summary=SUBCOMMANDS["split"],
    examples=(
        "policy-data split lift.zarr out=lift_parts",
        "policy-data split lift.zarr out=parts shares=[0.8,0.1,0.1] seed=1",
        "policy-data split mixed.zarr out=parts by=success",
    ),
)
_SHARES, _SUCCESS, _INSTRUCTION = _BY = ("shares", "success", "instruction")


@dataclass(frozen=True)
class SplitConfig:
    """Which store, into what."""

    store: str = option("???", STORE_HELP)
    out: str = option("???", "the new folder (or URL) of the parts, a store NAME.zarr for each")
    by: str = option(_SHARES, f"what decides: {', '.join(_BY)}")
    shares: list[float] = option([0.9, 0.1], "by=shares: the share of each part, 1 in all")
    names: list[str] = option(
        [], "by=shares: the parts' names; empty: train and validation (and test), or numbers"
    )
    seed: int = option(0, "by=shares: which of the many ways to share out")

    def __post_init__(self) -> None:
        if self.by not in _BY:
            raise ConfigError(f"by={self.by} is none of {', '.join(_BY)}.")


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data split`; `argv` without the command's name."""
    run_subcommand(COMMAND, SplitConfig, run, argv, places=("store",))


def run(config: SplitConfig) -> None:
    """Split. Raises ConfigError for shares that cannot be, StoreError for a damaged
    episode and where the parts cannot be written: all of them are there, or none."""
    store = EpisodeStore.open(config.store)
    if not store.episodes:
        raise StoreError(f"the store {store.path} has no episodes to split.")
    parts = parts_of(store, config)
    if is_address(config.out):
        _write(config.out, store, parts, config)
    else:
        with new_target(Path(config.out)) as folder:
            folder.mkdir()
            _write(str(folder), store, parts, config)
    for name, episodes in parts.items():
        steps = sum(store.episodes[index].length for index in episodes)
        sys.stdout.write(f"{config.out}/{name}.zarr: {len(episodes)} episodes, {steps} steps\n")


def parts_of(store: EpisodeStore, config: SplitConfig) -> Parts:
    """The indices of each part's episodes, by the part's name."""
    if config.by == _SUCCESS:
        return by_outcome(store.episodes)
    if config.by == _INSTRUCTION:
        return by_instruction(store.episodes)
    return by_shares(store.episodes, config.shares, config.names, config.seed)


def _write(folder: str, store: EpisodeStore, parts: Parts, config: SplitConfig) -> None:
    for name, episodes in parts.items():
        settings: dict[str, Any] = {"part": name, "by": config.by}
        if config.by == _SHARES:
            settings |= {"shares": list(config.shares), "seed": config.seed}
        chosen = [Chosen(store, episodes)]
        provenance = provenance_of(COMMAND.name, chosen, settings)
        write_copy(f"{folder}/{name}.zarr", chosen, provenance)
