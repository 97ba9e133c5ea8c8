"""policy-data view S.zarr: an HTML page of episodes to look at, or the same in Rerun's viewer."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loopdit.command import Command, option
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.commands.one_store import STORE_HELP
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.view.page import page_html
from loopdit.datasets.view.rerun_log import has_display, log_episodes, require_rerun
from loopdit.errors import ConfigError, StoreError
from loopdit.subcommand import run_subcommand
from loopdit.whole_file import require_folder, whole_file

COMMAND = Command(
    name="policy-data view",
    folder="data_view",
    summary=SUBCOMMANDS["view"],
    examples=(
        "policy-data view lift.zarr",
        "policy-data view lift.zarr episodes=[0,7] frames=200 out=lift.html",
        "policy-data view lift.zarr episodes=[0] rerun=true",
        "policy-data view lift.zarr rerun=true out=lift.rrd",
    ),
)
_FIRST = 4  # episodes shown where none are chosen


@dataclass(frozen=True)
class ViewConfig:
    """Which episodes, how, and where to."""

    store: str = option("???", STORE_HELP)
    episodes: list[int] = option([], f"their numbers, from 0; empty: the first {_FIRST}")
    out: str = option(
        "", "the page or .rrd file to write; empty: named after the store, in this folder"
    )
    frames: int = option(120, "at most so many frames of each camera and episode on the page")
    width: int = option(320, "at most so many pixels across for a frame on the page")
    rerun: bool = option(
        False, "open Rerun's viewer; where there is no display, or out= is given, write an .rrd"
    )

    def __post_init__(self) -> None:
        for name in ("frames", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.out and Path(self.out).suffix == ".rrd" and not self.rerun:
            raise ConfigError(f"out={self.out} is a file for Rerun: add rerun=true.")


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data view`; `argv` without the command's name."""
    run_subcommand(COMMAND, ViewConfig, run, argv, places=("store",))


def run(config: ViewConfig) -> None:
    """Write the page, or show the episodes. Raises ConfigError for an episode that there is not
    and for a file that cannot be written, StoreError for what cannot be read."""
    store = EpisodeStore.open(config.store)
    episodes = _chosen(config.episodes, store)
    if config.rerun:
        require_rerun()
        if not config.out and has_display():
            log_episodes(store, episodes, None)
            return
    path = Path(config.out or f"{_name(store)}.{'rrd' if config.rerun else 'html'}")
    require_folder(path.parent)
    try:
        with whole_file(path) as aside:
            if config.rerun:
                log_episodes(store, episodes, aside)
            else:
                page = page_html(store, episodes, config.frames, config.width)
                aside.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Choose another out=.") from error
    how = f"Open it: rerun {path}" if config.rerun else "Open it in a browser."
    sys.stdout.write(f"{path}: {len(episodes)} of {len(store.episodes)} episodes. {how}\n")


def _chosen(episodes: Sequence[int], store: EpisodeStore) -> list[int]:
    count = len(store.episodes)
    if not count:
        raise StoreError(f"the store {store.path} has no episodes to show.")
    absent = [index for index in episodes if not 0 <= index < count]
    if absent:
        raise ConfigError(
            f"episodes=[{','.join(map(str, episodes))}]: {store.path} has no episode {absent[0]}. "
            f"It has 0 to {count - 1}."
        )
    return list(dict.fromkeys(episodes)) or list(range(min(_FIRST, count)))


def _name(store: EpisodeStore) -> str:
    return Path(str(store.path)).name.removesuffix(".zarr") or "episodes"
