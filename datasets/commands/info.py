"""policy-data info S.zarr: what is in a store, for people or as one JSON object."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loopdit.command import Command
from loopdit.datasets.commands.data import SUBCOMMANDS
from loopdit.datasets.commands.one_store import OneStoreConfig
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.summary import summary
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-data info",
    folder="data_info",
    summary=SUBCOMMANDS["info"],
    examples=("policy-data info lift.zarr", "policy-data info s3://bucket/lift.zarr json=true"),
)
_INSTRUCTIONS = 6  # shown to people; the JSON has all


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-data info`; `argv` without the command's name."""
    run_subcommand(COMMAND, OneStoreConfig, run, argv, places=("store",))


def run(config: OneStoreConfig) -> None:
    """Print. Raises StoreError or SpecMismatch for what is no store or cannot be read."""
    found = summary(EpisodeStore.open(config.store))
    if config.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        wide_console().print(store_table(found))


def wide_console() -> Console:
    """Where tables are printed: as wide as a terminal is, elsewhere without breaking lines, which
    other programs read."""
    console = Console()
    return console if console.is_terminal else Console(width=500)


def store_table(found: Mapping[str, Any]) -> Table:
    """What `summary` says of a store, for people."""
    return rows_table(_store_rows(found))


def rows_table(rows: Iterable[tuple[str, str]]) -> Table:
    """A name and what it is, a row each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    for name, text in rows:
        table.add_row(name, escape(text))
    return table


def _store_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    spec = found["spec"]
    seconds = found["duration_s"]
    rows = [
        ("store", found["path"]),
        ("episodes", f"{found['episodes']:,} ({_outcomes(found)})"),
        ("steps", f"{found['steps']:,} at {found['rate_hz']:g} Hz, {_duration(seconds)}"),
    ]
    if found["lengths"]:
        shortest, middle, longest = (found["lengths"][name] for name in ("min", "median", "max"))
        rows.append(("length", f"{shortest} to {longest} steps, median {middle:g}"))
    size = size_text(found["bytes"])
    each = f", {size_text(found['bytes'] / found['steps'])} a step" if found["steps"] else ""
    rows += [
        ("size", f"{size}{each}; frames {found['frames']}"),
        *(tensor_row(tensor) for tensor in [*spec["observations"], spec["action"]]),
        ("action frame", spec["action_frame"]),
        ("instructions", _instructions(found["instructions"])),
        ("made by", origin_text(found["provenance"])),
        ("digest", found["digest"]),
    ]
    return rows


def _outcomes(found: Mapping[str, Any]) -> str:
    kinds = {
        "successful": found["successes"],
        "failed": found["failures"],
        "with unknown outcome": found["outcome_unknown"],
    }
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count) or "none"


def tensor_row(tensor: Mapping[str, Any]) -> tuple[str, str]:
    """A spec's tensor, as `TensorSpec` is written: its name; shape, dtype, labels and units."""
    text = f"{' x '.join(map(str, tensor['shape']))} {tensor['dtype']}"
    labels, units = tensor["labels"], tensor["units"]
    if labels:
        named = units or [""] * len(labels)
        text += ": " + ", ".join(
            f"{label} {unit}" if unit not in ("", "1") else label
            for label, unit in zip(labels, named, strict=True)
        )
    return tensor["name"], text


def _instructions(counts: Mapping[str, int]) -> str:
    shown = [f"{text or '(none)'} ({count:,})" for text, count in counts.items()][:_INSTRUCTIONS]
    more = len(counts) - len(shown)
    return "\n".join([*shown, *([f"and {more:,} more"] if more else [])]) or "none"


def origin_text(provenance: Mapping[str, Any]) -> str:
    """The lines of who made it, when, from what, at which commit, as far as it is told."""
    commit = str(provenance.get("commit") or "")
    versions, told = provenance.get("versions"), provenance.get("sources")
    version = versions.get("loopdit", "") if isinstance(versions, dict) else ""
    words = [
        str(provenance.get("made_by") or provenance.get("made by") or "not told"),
        *(
            str(provenance[key])
            for key in ("recorded_at", "made_at", "converted_at")
            if provenance.get(key)
        ),
        f"loopdit {version}" if version else "",
        f"commit {commit[:12]}{'-dirty' if commit.endswith('-dirty') else ''}" if commit else "",
    ]
    sources = [
        f"from {source.get('path')} ({source.get('episodes')} episodes)"
        for source in (told if isinstance(told, list) else [])
        if isinstance(source, dict)
    ]
    return "\n".join([", ".join(filter(None, words)), *sources])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size_text(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
