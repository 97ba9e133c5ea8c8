"""metrics.jsonl: one line of JSON for each row of the loss curve, and for each evaluation.

    {"step", "elapsed_s", "loss": {"1": ...}, "learning_rate", "gradient_norm", "samples_per_s",
     "validation": {...}}
    {"step", "elapsed_s", "evaluation": {...}}

A row is the mean over the steps since the row before it. At which steps there are rows depends on
the options alone, and the sums between two of them are in the checkpoint, to the bit: a run that
was stopped and went on has the rows of one that was not.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopdit.errors import CheckpointError
from loopdit.whole_file import whole_file

METRICS = "metrics.jsonl"

Row = dict[str, Any]


class RunningMean:
    """Of some tensors of one shape each, in float64, on their device: adding waits for nothing."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, **values: Tensor) -> None:
        """One more of each."""
        for name, value in values.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def take(self) -> tuple[dict[str, Any], int]:
        """The means as numbers or lists of them, and of how many; begins again."""
        means = {name: (total / self._count).tolist() for name, total in self._sums.items()}
        count = self._count
        self.__init__()
        return means, count

    def state(self) -> Row:
        """Plain JSON, for `load_state`. Python writes a float so that it is read the same."""
        sums = {name: total.tolist() for name, total in self._sums.items()}
        return {"count": self._count, "sums": sums}

    def load_state(self, state: Row, device: torch.device) -> None:
        """Go on from what `state` returned."""
        self._count = int(state["count"])
        self._sums = {
            name: torch.tensor(total, dtype=torch.float64, device=device)
            for name, total in state["sums"].items()
        }


def append_row(folder: Path, row: Row) -> None:
    """Raises CheckpointError when the disk is full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise CheckpointError(
            f"cannot write {folder / METRICS}: {error.strerror}. Free space or choose another "
            f"out=; the last checkpoint there is intact."
        ) from error


def read_rows(folder: Path) -> list[Row]:
    """All of them, none where there is no file; half a last line, of a killed run, is left out."""
    path = folder / METRICS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def forget_later_rows(folder: Path, step: int) -> None:
    """Drop what a killed run logged after its last checkpoint: those steps are done again."""
    if (folder / METRICS).exists():
        kept = [row for row in read_rows(folder) if row["step"] <= step]
        with whole_file(folder / METRICS) as aside:
            aside.write_text("".join(json.dumps(row) + "\n" for row in kept))


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row by path, as "loss/1": what trackers of experiments take."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and name != "step":
            found[f"{prefix}{name}"] = float(value)
    return found
