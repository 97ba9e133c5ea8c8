"""policy-data repair S.zarr: set damaged episodes aside, and keep the rest."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from loopdit.command import Command, option
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.commands.verify import told
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


@dataclass(frozen=True)
class RepairConfig:
    """Which store, and for whom."""

    store: str = option("???", "the episode store: a folder or a URL; the first word is it, too")
    json: bool = option(False, "print one JSON object")


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data repair`; `argv` without the command's name."""
    run_subcommand(COMMAND, RepairConfig, run, argv, places=("store",))


def run(config: RepairConfig) -> None:
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
    lines = told(before)[:-1]
    lines = [line for line in lines if line.startswith("damaged: ")]
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
