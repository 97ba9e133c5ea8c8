"""`eval.json`: what rollouts came to, in the form that programs rely on.

    {"format", "format_version", "machine", "versions", "commit", "seeds", "bundle", "commands",
     "results": [{"env", "policy", "loops", "steps", "episodes", "successes", "success_rate",
                  "ci95": [low, high], "latency_ms": {"p50", "p99"}, ...}]}

`loops` and `steps` are null for a policy without a compute dial. `bundle` names the first
model, each row its own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopdit.errors import ConfigError
from loopdit.eval.control import combined, latency_percentiles_ms
from loopdit.eval.rollout import CLOCK, Rollout
from loopdit.eval.success import wilson_interval
from loopdit.machine import machine_and_versions
from loopdit.whole_file import require_folder, whole_file

FILE = "eval.json"
FORMAT = "loopdit-eval"
FORMAT_VERSION = 1

Row = dict[str, Any]


def result_row(condition: Mapping[str, Any], rollouts: Sequence[Rollout], period_s: float) -> Row:
    """One entry of `results`: `condition` (env, policy, loops, steps and what else tells rows
    apart) with what its rollouts, at least one, came to."""
    successes = sum(r.success for r in rollouts)
    latencies = [latency for r in rollouts for latency in r.latencies_s]
    return {
        **condition,
        "episodes": len(rollouts),
        "successes": successes,
        "success_rate": successes / len(rollouts),
        "ci95": list(wilson_interval(successes, len(rollouts))),
        "latency_ms": latency_percentiles_ms(latencies),
        "chunks": len(latencies),
        "control": combined((r.control for r in rollouts), period_s).to_dict(),
        "clock": CLOCK,
        # Broken physics is no success, and not the policy's failure either.
        "unstable": sum(r.unstable for r in rollouts),
        "seeds": [rollouts[0].seed, rollouts[-1].seed],
        "rollouts": [
            {"seed": r.seed, "success": r.success, "steps": r.steps, "unstable": r.unstable}
            for r in rollouts
        ],
    }


def require_writable(folder: Path, append: bool) -> None:
    """Raise ConfigError now rather than after the rollouts when `save_results` could not work."""
    require_folder(folder)
    if append and (folder / FILE).exists():
        load_results(folder)


def save_results(folder: Path, rows: Sequence[Row], append: bool) -> dict[str, Any]:
    """Write `folder`/eval.json whole or not at all, and return what it says.

    With `append`, rows that are there stay unless one of the same policy, model, settings and
    seeds replaces them. Raises ConfigError when the file there cannot be read or the new one
    cannot be written.
    """
    path = folder / FILE
    kept = load_results(folder)["results"] if append and path.exists() else []
    new = {_key(row) for row in rows}
    every = [row for row in kept if _key(row) not in new] + list(rows)
    models = [row["model_id"] for row in every if row["model_id"]]
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **machine_and_versions(),
        "seeds": [min(row["seeds"][0] for row in every), max(row["seeds"][1] for row in every)],
        "bundle": {"model_id": models[0] if models else None},
        "commands": list(dict.fromkeys(row["command"] for row in every)),
        "results": every,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_text(json.dumps(content, indent=1))
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}. Free space or choose another out=."
        ) from error
    return content


def load_results(folder: Path) -> dict[str, Any]:
    """Read `folder`/eval.json. Raises ConfigError where it is missing, damaged or another's."""
    path = folder / FILE
    try:
        content: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path} ({error}). Choose another out=, or append=false to replace it."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("results", []), list):
        raise ConfigError(
            f"{path} is not an evaluation's. Choose another out=, or append=false to replace it."
        )
    found = (content.get("format"), content.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise ConfigError(
            f"{path} has format {found[0]!r} version {found[1]!r}; this loopdit reads {FORMAT!r} "
            f"version {FORMAT_VERSION}. Choose another out=, or append=false to replace it."
        )
    return content


def _key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement, so that the later one replaces the earlier."""
    names = ("env", "policy", "label", "model_id", "loops", "steps", "execute_horizon")
    return (*(row.get(name) for name in names), *row["seeds"])
