"""policy-info: what a preset, a checkpoint, a bundle or an episode store is.

    policy-info outputs/checkpoint
    policy-info preset=v1_3b4l json=true

It lives in deploy/, the lowest folder from which presets and checkpoints (policy/), bundles and
stores (datasets/) can all be seen. Only what is asked about is imported: a store is described
without torch.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from loopdit.command import Command, option, require_effect
from loopdit.datasets.commands.info import store_table, wide_console
from loopdit.datasets.remote_store import is_address
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.summary import summary
from loopdit.datasets.zarr_files import METADATA as STORE_FILE
from loopdit.deploy.bundle.bundle import default_bundle, is_bundle
from loopdit.deploy.bundle.manifest import MANIFEST as BUNDLE_FILE
from loopdit.errors import ConfigError
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-info",
    folder="info",
    summary="what a checkpoint, a bundle, an episode store or a preset of the models is.",
    examples=(
        "policy-info shipped",
        "policy-info outputs/checkpoint json=true",
        "policy-info lift.zarr",
        "policy-info preset=v1_3b4l",
        "policy-info preset=cogvideox_2b freeze=half loops=3 json=true",
    ),
)
SHIPPED = "shipped"
_CHECKPOINT_FILE = "checkpoint.json"


@dataclass(frozen=True)
class InfoConfig:
    """What is asked about, and by whom."""

    target: str = option(
        "",
        "a checkpoint, a bundle or an episode store: its folder, zip or URL, or shipped; the first "
        "word is it, too",
    )
    preset: str = option("", "in its place a model system by its name, such as ship")
    freeze: str = option(
        "", "of preset=cogvideox_2b: what is trained beside the loops: frozen, half or unfrozen"
    )
    loops: int = option(0, "of preset=cogvideox_2b: how often each block is applied; 0: 3")
    json: bool = option(False, "print one JSON object")

    def __post_init__(self) -> None:
        if bool(self.target) == bool(self.preset):
            found = f"are {self.target} and {self.preset}" if self.target else "are both empty"
            raise ConfigError(
                f"target= and preset= {found}. Name one: policy-info FOLDER, or policy-info "
                f"preset=ship."
            )
        if self.loops < 0:
            raise ConfigError(f"loops={self.loops} is negative. Give 1 or more.")
        if not self.preset:
            require_effect(self, ("freeze", "loops"), "preset=cogvideox_2b")


def main() -> None:
    """Entry point of `policy-info`."""
    run_subcommand(COMMAND, InfoConfig, run, sys.argv[1:], places=("target",))


def run(config: InfoConfig) -> None:
    """Print. Raises ConfigError for what is none of them, LoopditError for what is damaged."""
    found = facts(config)
    if config.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        wide_console().print(_table(found))


def facts(config: InfoConfig) -> dict[str, Any]:
    """Everything that is told, plain JSON types; "kind" is preset, checkpoint, bundle or store."""
    if config.preset:
        from loopdit.deploy.info.facts import preset_facts

        return preset_facts(config.preset, config.freeze, config.loops)
    if is_address(config.target):
        return _store(config.target)
    folder = default_bundle() if config.target == SHIPPED else Path(config.target)
    # In this order: a bundle has a checkpoint in it.
    if (folder / BUNDLE_FILE).is_file() or (folder.is_file() and is_bundle(folder)):
        from loopdit.deploy.info.facts import bundle_facts

        return bundle_facts(folder)
    if (folder / _CHECKPOINT_FILE).is_file():
        from loopdit.deploy.info.facts import checkpoint_facts

        return checkpoint_facts(folder)
    if (folder / STORE_FILE).is_file():
        return _store(config.target)
    raise ConfigError(_unknown(config.target))


def _store(path: str) -> dict[str, Any]:
    return {"kind": "store", **summary(EpisodeStore.open(path))}


def _table(found: Mapping[str, Any]) -> Table:
    if found["kind"] == "store":
        return store_table(found)
    from loopdit.deploy.info.table import policy_table

    return policy_table(found)


def _unknown(target: str) -> str:
    looked = (
        f"{BUNDLE_FILE} (a bundle), {_CHECKPOINT_FILE} (a checkpoint) or {STORE_FILE} (a store)"
    )
    if Path(target).is_dir():
        return (
            f"{target} is nothing of loopdit's: it has no {looked}. Name the folder that has one, "
            f"or make a store of a data set of another format: policy-data convert."
        )
    what = "is a file" if Path(target).exists() else "does not exist"
    return (
        f"{target} {what}. Looked for a folder with {looked}, or the word {SHIPPED}; a model "
        f"system by name is preset=NAME."
    )


if __name__ == "__main__":
    main()
