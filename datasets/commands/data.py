"""policy-data: look at an episode store, check it, mend it, and make others of it.

    policy-data info S.zarr            what is in it
    policy-data merge A.zarr B.zarr out=C.zarr

Each subcommand is a module of this folder, imported when it is asked for.
"""

from loopdit.subcommand import CommandGroup

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
    CommandGroup(
        name="policy-data",
        does="look at an episode store, check it, mend it, and make others of it.",
        subcommands=SUBCOMMANDS,
        module="loopdit.datasets.commands.{}".format,
        note="A store is a folder, or a URL as fsspec has them: s3://bucket/lift.zarr",
    ).main()


if __name__ == "__main__":
    main()
