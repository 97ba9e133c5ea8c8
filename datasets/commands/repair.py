"""policy-data repair S.zarr: set damaged episodes aside, and keep the rest."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from loopdit.command import Command
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.commands.one_store import OneStoreConfig
from loopdit.datasets.commands.verify import damage
from loopdit.datasets.store_files import QUARANTINE
from loopdit.datasets.verification import Repaired, repair
from loopdit.progress import Progress
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-data repair",
    folder="data_repair",
    summary=SUBCOMMANDS["repair"],
    examples=("policy-data repair lift.zarr", "policy-data repair lift.zarr json=true"),
)


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data repair`; `argv` without the command's name."""
    run_subcommand(COMMAND, OneStoreConfig, run, argv, places=("store",))


def run(config: OneStoreConfig) -> None:
    """Repair, and say what was done. Raises StoreError for what is no store or cannot be
    written."""
    if config.json:
        sys.stdout.write(json.dumps(asdict(repair(config.store))) + "\n")
        return
    with Progress("reading", 1.0) as progress:
        done = repair(
            config.store,
            lambda read, total: progress.update(read / total, f"{read}/{total} episodes"),
        )
    sys.stdout.write("\n".join(_told(done)) + "\n")


def _told(done: Repaired) -> list[str]:
    before = done.before
    lines = damage(before)
    if before.lines:
        lines.append("the list was written anew without its damaged lines")
    if done.relisted:
        lines.append(f"listed again from their own files: {', '.join(done.relisted)}")
    if done.quarantined:
        lines.append(
            f"set aside in {before.path}/{QUARANTINE}: {', '.join(done.quarantined)}. "
            f"Look there, and remove that folder when nothing in it is wanted."
        )
    if done.swept:
        lines.append(f"removed what killed writers left: {', '.join(done.swept)}")
    if not lines:
        lines.append("nothing to repair")
    root = " Its own metadata could not be mended." if before.root else ""
    return [*lines, f"{before.path}: {done.episodes} episodes, all whole.{root}"]
