"""`eval.json`: what rollouts came to, in the form that programs rely on.

    {"format", "format_version", "machine", "versions", "commit", "seeds", "bundle", "commands",
     "results": [{"env", "policy", "loops", "steps", "episodes", "successes", "success_rate",
                  "ci95": [low, high], "latency_ms": {"p50", "p99"}, ...}],
     "controls": [rows of the same form], "comparisons", "simulator", "model_digest", "restarts",
     "plans"}

`loops` and `steps` are null for a policy without a compute dial. `bundle` names the first
model, each row its own. Latencies are null where no chunk came.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.control import combined, latency_percentiles_ms
from loopdit.eval.rollouts.measures import stage_shares
from loopdit.eval.rollouts.rollout import ERROR, Rollout
from loopdit.eval.statistics.success import wilson_interval
from loopdit.machine import machine_and_versions
from loopdit.whole_file import require_folder, whole_file

FILE = "eval.json"
FORMAT = "loopdit-eval"
FORMAT_VERSION = 1

Row = dict[str, Any]

_NO_PERCENTILES = {"p50": None, "p99": None}
# What rows had before there was anything to choose.
_CIRCUMSTANCES: Row = {
    "delay": Condition.delay,
    "execution": Condition.execution,
    "execute_horizon": Condition.execute_horizon,
    "rate_hz": Condition.rate_hz,
    "divide": Condition.divide,
    "variation": Condition.variation,
    "fault": Condition.fault,
    "adaptive": Condition.adaptive,
    "clock": "paused",
    "restarts": 0,
}


def result_row(
    condition: Mapping[str, Any],
    rollouts: Sequence[Rollout],
    period_s: float,
    errors: Mapping[int, str] | None = None,
) -> Row:
    """One entry of `results`: `condition` (env, policy, loops, steps and what else tells rows
    apart) with what its rollouts, at least one, came to. `errors` has by seed what was raised.

    `success_rate` is of all episodes; `unstable` and `errors` of them had no verdict.
    """
    successes = sum(r.success for r in rollouts)
    latencies = [latency for r in rollouts for latency in r.latencies_s]
    steps = sum(r.steps for r in rollouts)
    depths = [r.mean_loops for r in rollouts if r.mean_loops is not None]
    shares = stage_shares([r.stage for r in rollouts], condition.get("stages", ()))
    return {
        **_CIRCUMSTANCES,
        **condition,
        "episodes": len(rollouts),
        "successes": successes,
        "success_rate": successes / len(rollouts),
        "ci95": list(wilson_interval(successes, len(rollouts))),
        "latency_ms": latency_percentiles_ms(latencies) if latencies else _NO_PERCENTILES,
        "chunks": len(latencies),
        "control": combined((r.control for r in rollouts), period_s).to_dict(),
        # Broken physics is no success, and not the policy's failure either; nor is an exception.
        "unstable": sum(r.unstable for r in rollouts),
        "errors": sum(r.outcome == ERROR for r in rollouts),
        "seeds": [rollouts[0].seed, rollouts[-1].seed],
        "time_to_success_s": _quartiles(
            [r.time_to_success_s for r in rollouts if r.time_to_success_s is not None]
        ),
        "stages": {stage: round(share * len(rollouts)) for stage, share in shares.items()},
        "jerk": sum(r.jerk for r in rollouts) / len(rollouts),
        "border_jerk": sum(r.border_jerk for r in rollouts) / len(rollouts),
        "rejected": sum(r.rejected for r in rollouts) / steps if steps else 0.0,
        "missed": sum(r.missed for r in rollouts) / steps if steps else 0.0,
        "mean_loops": sum(depths) / len(depths) if depths else None,
        "rollouts": [_rollout_entry(r, (errors or {}).get(r.seed, "")) for r in rollouts],
    }


def _rollout_entry(done: Rollout, error: str) -> dict[str, Any]:
    entry = {
        "seed": done.seed,
        "success": done.success,
        "steps": done.steps,
        "unstable": done.unstable,
        "outcome": done.outcome,
        "stage": done.stage,
        "state_sha256": done.state_sha256,
    }
    return {**entry, "error": error} if error else entry


def _quartiles(values: Sequence[float]) -> dict[str, float] | None:
    """{"p25", "p50", "p75"}, None of nothing."""
    if not values:
        return None
    found = np.percentile(np.asarray(values), [25, 50, 75])
    return dict(zip(("p25", "p50", "p75"), map(float, found), strict=True))


def require_writable(folder: Path, append: bool) -> None:
    """Raise ConfigError now rather than after the rollouts when `save_results` could not work."""
    require_folder(folder)
    if append and (folder / FILE).exists():
        load_results(folder)


def save_results(
    folder: Path,
    rows: Sequence[Row],
    append: bool,
    controls: Sequence[Row] = (),
    comparisons: Sequence[Row] = (),
) -> dict[str, Any]:
    """Write `folder`/eval.json whole or not at all, and return what it says.

    With `append`, rows that are there stay unless one of the same policy, model, settings and
    seeds replaces them, or one of the same run (`plan`), which has gone on since. Raises
    ConfigError when the file there cannot be read or the new one cannot be written.
    """
    path = folder / FILE
    before = load_results(folder) if append and path.exists() else {}
    every = _merged(before.get("results", []), rows)
    beside = _merged(before.get("controls", []), controls)
    plans = list(dict.fromkeys(row["plan"] for row in every if row.get("plan")))
    new = {row.get("plan") for row in rows}
    kept = [c for c in before.get("comparisons", []) if c["plan"] in plans and c["plan"] not in new]
    models = [row["model_id"] for row in every if row["model_id"]]
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **machine_and_versions(),
        "seeds": [min(row["seeds"][0] for row in every), max(row["seeds"][1] for row in every)],
        "bundle": {"model_id": models[0] if models else None},
        "commands": list(dict.fromkeys(row["command"] for row in every)),
        "simulator": next((row["simulator"] for row in every if row.get("simulator")), None),
        "model_digest": next(
            (row["model_digest"] for row in every if row.get("model_digest")), None
        ),
        "restarts": sum(row.get("restarts", 0) for row in (*every, *beside)),
        "plans": plans,
        "results": every,
        "controls": beside,
        "comparisons": [*kept, *comparisons],
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
    if not isinstance(content, dict) or not _has_rows(content):
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


def _has_rows(content: Mapping[str, Any]) -> bool:
    """Whether its lists are of rows: of what at least says which rollouts it is about."""
    rows = [content.get(name, []) for name in ("results", "controls")]
    return all(
        isinstance(some, list)
        and all(isinstance(row, dict) and row.get("rollouts") for row in some)
        for some in rows
    )


def _merged(kept: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """`rows` after those of `kept` that they do not replace."""
    new = {_key(row) for row in rows}
    runs = {row["plan"] for row in rows if row.get("plan")}
    left = [row for row in kept if _key(row) not in new and row.get("plan") not in runs]
    return [*left, *rows]


def _key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement, so that the later one replaces the earlier."""
    names = ("env", "policy", "label", "model_id", *(field.name for field in fields(Condition)))
    return (*(row.get(name, _CIRCUMSTANCES.get(name)) for name in names), *row["seeds"])
