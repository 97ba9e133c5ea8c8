"""policy-data stats S.zarr: range and spread of every element, and how long episodes are."""

import json
import sys
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from loopdit.command import Command
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.commands.info import wide_console
from loopdit.datasets.commands.one_store import OneStoreConfig
from loopdit.datasets.spec import TensorSpec
from loopdit.datasets.statistics import VectorStatistics, compute_statistics
from loopdit.datasets.store import ACTION, EpisodeStore
from loopdit.datasets.summary import summary
from loopdit.errors import StoreError
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-data stats",
    folder="data_stats",
    summary=SUBCOMMANDS["stats"],
    examples=("policy-data stats lift.zarr", "policy-data stats lift.zarr json=true"),
)
_COLUMNS = ("mean", "std", "low", "q01", "q99", "high")
_HEADS = {"low": "min", "high": "max"}


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data stats`; `argv` without the command's name."""
    run_subcommand(COMMAND, OneStoreConfig, run, argv, places=("store",))


def run(config: OneStoreConfig) -> None:
    """Print. Raises StoreError for a store without episodes or that cannot be read."""
    store = EpisodeStore.open(config.store)
    if not store.episodes:
        raise StoreError(f"the store {store.path} has no episodes. Record some: policy-collect.")
    found = compute_statistics(store)
    tensors = {tensor.name: tensor for tensor in store.spec.observations}
    tensors[ACTION] = store.spec.action
    lengths = summary(store)["lengths"]
    if config.json:
        vectors = {
            name: {
                "labels": list(tensors[name].labels),
                "units": list(tensors[name].units),
                **{_HEADS.get(key, key): values for key, values in one.to_dict().items()},
            }
            for name, one in found.items()
        }
        sys.stdout.write(json.dumps({"lengths": lengths, "vectors": vectors}) + "\n")
        return
    console = wide_console()
    for name, one in found.items():
        console.print(_table(name, tensors[name], one))
    console.print(
        f"{len(store.episodes):,} episodes of {lengths['min']} to {lengths['max']} steps, median "
        f"{lengths['median']:g}.",
        highlight=False,
    )


def _table(name: str, tensor: TensorSpec, found: VectorStatistics) -> Table:
    """One row for each element of a vector, in its raw units."""
    table = Table(
        title=name, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for head in ("", "unit"):
        table.add_column(head, overflow="fold")
    for column in _COLUMNS:
        table.add_column(_HEADS.get(column, column), justify="right")
    for element in range(len(found.mean)):
        label = tensor.labels[element] if tensor.labels else str(element)
        unit = tensor.units[element] if tensor.units else ""
        numbers = (getattr(found, column)[element] for column in _COLUMNS)
        table.add_row(escape(label), escape(unit), *(f"{number:.3g}" for number in numbers))
    return table
