"""policy-data: look at an episode store, check it, mend it, and make others of it.

    policy-data info S.zarr            what is in it
    policy-data merge A.zarr B.zarr out=C.zarr

Each subcommand is a module of this folder, imported when it is asked for.
"""

import sys
from importlib import import_module

from loopdit.subcommand import refuse_subcommand

NAME = "policy-data"
SUBCOMMANDS = {
    "info": "what is in a store: episodes, steps, cameras, rate, size, where it came from.",
    "stats": "range and spread of each element of the actions and observations, and the lengths.",
    "view": "a page of episodes with their frames and plots, or the same in Rerun.",
    "verify": "read everything in a store and name each episode that is damaged.",
    "repair": "set damaged episodes aside, and keep the rest of a store.",
    "convert": "turn another format's data set into a store, or a store into another format.",
    "merge": "one store of the episodes of several.",
    "split": "several stores of the episodes of one: by shares, success or instruction.",
}


def main() -> None:
    """Entry point of `policy-data`."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in SUBCOMMANDS:
        import_module(f"loopdit.datasets.commands.{first}").main(sys.argv[2:])
    elif first in ("--help", "-h"):
        sys.stdout.write(_help_text())
    elif not first:
        sys.exit(f"{NAME}: error: no subcommand is given. They are: {', '.join(SUBCOMMANDS)}.")
    else:
        refuse_subcommand(NAME, first, SUBCOMMANDS)


def _help_text() -> str:
    lines = [f"{NAME}: look at an episode store, check it, mend it, and make others of it.", ""]
    lines += ["Subcommands (each with a --help of its own):"]
    lines += [f"  {name:<10}{summary}" for name, summary in SUBCOMMANDS.items()]
    lines += ["", "A store is a folder, or a URL as fsspec has them: s3://bucket/lift.zarr"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
