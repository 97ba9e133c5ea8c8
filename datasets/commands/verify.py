"""policy-data verify S.zarr: read everything, name each damaged episode, exit 1 if there is one."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict

from loopdit.command import Command
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.commands.one_store import OneStoreConfig
from loopdit.datasets.verification import Verified, verify
from loopdit.progress import Progress
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-data verify",
    folder="data_verify",
    summary=SUBCOMMANDS["verify"],
    examples=("policy-data verify lift.zarr", "policy-data verify lift.zarr json=true"),
)


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data verify`; `argv` without the command's name."""
    run_subcommand(COMMAND, OneStoreConfig, run, argv, places=("store",))


def run(config: OneStoreConfig) -> None:
    """Print what is wrong, and exit with status 1 if anything is. Raises StoreError or
    SpecMismatch for what is no store."""
    if config.json:
        found = verify(config.store)
        sys.stdout.write(json.dumps({"whole": found.whole, **asdict(found)}) + "\n")
    else:
        with Progress("verifying", 1.0) as progress:
            found = verify(
                config.store,
                lambda done, total: progress.update(done / total, f"{done}/{total} episodes"),
            )
        sys.stdout.write("\n".join(_told(found)) + "\n")
    if not found.whole:
        sys.exit(1)


def damage(found: Verified) -> list[str]:
    """What is wrong, a line each: each damaged episode once, with all of its problems."""
    lines = [f"damaged: {line.where} {line.problem}" for line in found.lines]
    for id in found.damaged:
        own = [problem for problem in found.problems if problem.id == id]
        why = "; ".join(f"{one.key}: {one.problem}" if one.key else one.problem for one in own)
        lines.append(f"damaged: episode {own[0].episode} ({id}): {why}")
    lines += [
        f"damaged: {problem}. Its episodes are not concerned; restore that file from a copy, "
        f"because which letter of it is wrong cannot be told"
        for problem in found.root
    ]
    return lines


def _told(found: Verified) -> list[str]:
    lines = damage(found)
    if found.leftovers:
        lines.append(
            f"note: {len(found.leftovers)} folders that no line lists, of a writer that was "
            f"killed or is still at it ({', '.join(found.leftovers[:3])}); repair removes the dead"
        )
    if found.whole:
        lines.append(f"{found.path}: {found.episodes} episodes, {found.steps} steps: all whole.")
    else:
        mend = shlex.join(["policy-data", "repair", found.path])
        lines.append(
            f"{found.path}: {len(found.damaged)} of {found.episodes} episodes are damaged"
            f"{', and so is the list' if found.lines else ''}."
            f"{f' To keep the rest: {mend}' if found.damaged or found.lines else ''}"
        )
    return lines
