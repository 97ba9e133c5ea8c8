"""What the programs of a study left, as one record of plain JSON.

    {"about": {"machine", "versions", "commit", "lerobot"}, "ours",
     "study": {..., "data": of each task the store's "digest" and "episodes"},
     "arms": [{"name", "title", "options", "lerobot", "alone"}],
     "runs": [{"arm", "task", "seed", "parameters", "minutes", "samples_per_s": {q25, median, q75},
               "validation": what its own training measured last, "held_out": see held_out.py,
               "results": [{"loops", "steps", "successes", "episodes", "ci95", "outcomes"}]}],
     "latency": see chunk_latency.py, or null}

A run is there once it has rollouts, or was in an earlier record of the same sizes, data and arm: so
a study goes on where another machine stopped. `outcomes` has a letter for each test seed in their
order: S success, F failure, U unstable, E error.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from arms import OURS, Arm, Condition, Study

from loopdit.machine import machine_and_versions

_LETTERS = {"success": "S", "failure": "F", "unstable": "U", "error": "E"}
RECORD = Path("results") / "peers.json"  # in docs/
_KEPT = ("loops", "steps", "successes", "episodes", "ci95")


RunName = tuple[str, str, int]  # arm, task, training seed


def recorded(study: Study, arms: Sequence[Arm], record: Path) -> dict[RunName, dict[str, Any]]:
    """The whole runs of an earlier record, where that is of the same sizes, by arms that are
    trained in the same way still, on the demonstrations that are here, if any are."""
    earlier = _json(record)
    sizes = ("steps", "episodes", "windows")
    if earlier is None or any(earlier["study"][n] != getattr(study, n) for n in sizes):
        return {}
    known, here = earlier["study"]["data"], study.known()
    trained = {arm["name"]: arm["options"] for arm in earlier["arms"]}
    same = {arm.name: arm for arm in arms if trained.get(arm.name) == list(arm.options)}
    return {
        (run["arm"], run["task"], run["seed"]): run
        for run in earlier["runs"]
        if run["arm"] in same and _covers(run["held_out"], same[run["arm"]].conditions)
        if here.get(run["task"], known[run["task"]]) == known[run["task"]]
    }


def collected(study: Study, arms: Sequence[Arm], record: Path) -> dict[str, Any]:
    """The record anew, with what the earlier one at `record` has beside this study's folder;
    `about` is of the newest evaluation."""
    found = recorded(study, arms, record)
    for arm in arms:
        for task, seed in product(study.tasks, study.seeds):
            folder = study.folder(arm, task, seed)
            if has_rollouts(folder, arm, study.episodes):
                found[arm.name, task, seed] = _run(folder, arm, task, seed)
    order = {arm.name: place for place, arm in enumerate(arms)}
    runs = [found[name] for name in sorted(found, key=lambda name: (order[name[0]], *name[1:]))]
    present = {run["arm"] for run in runs}
    known = (_json(record) or {"study": {"data": {}}})["study"]["data"] | study.known()
    ran = {run["task"] for run in runs}
    data = {task: of for task, of in known.items() if task in ran}
    described = ("name", "title", "options", "lerobot", "alone")
    latency = _json(study.out / "chunk_latency.json")
    if latency is None and runs:
        latency = (_json(record) or {"latency": None})["latency"]
    return {
        "about": _about(study, arms, _json(record)),
        "study": {name: v for name, v in asdict(study).items() if name != "out"} | {"data": data},
        "ours": OURS,
        "arms": [
            {name: asdict(arm)[name] for name in described} for arm in arms if arm.name in present
        ],
        "runs": runs,
        "latency": latency,
    }


def step_of(folder: Path) -> int:
    """The optimizer step that the training in `folder` has reached; 0 where there is none."""
    ours = _json(folder / "checkpoint" / "checkpoint.json")
    if ours is not None:
        return int(ours["provenance"]["step"])
    theirs = _json(folder / "checkpoint" / "peer.json")
    return int(theirs["step"]) if theirs is not None else 0


def has_rollouts(folder: Path, arm: Arm, episodes: int) -> bool:
    """Whether all of them were run, under each condition of the arm."""
    found = _json(folder / "eval" / "eval.json")
    rows: list[Any] = found["results"] if found is not None else []
    whole = [row for row in rows if row["episodes"] == episodes]
    return len(whole) == len(arm.conditions)


def has_errors(folder: Path, arm: Arm) -> bool:
    """Whether the held-out error was measured under each condition of the arm."""
    return _covers(_json(folder / "held_out.json"), arm.conditions)


def has_latency(out: Path, arms: Sequence[Arm]) -> bool:
    """Whether every condition of these arms was timed together with the others."""
    found = _json(out / "chunk_latency.json")
    rows = {} if found is None else {(r["name"], r["loops"], r["steps"]) for r in found["rows"]}
    return all((arm.name, *condition) in rows for arm in arms for condition in arm.conditions)


def _covers(found: Any, conditions: Sequence[Condition]) -> bool:
    return found is not None and set(conditions) <= {
        (row["loops"], row["steps"]) for row in found["errors"]
    }


def _run(folder: Path, arm: Arm, task: str, seed: int) -> dict[str, Any]:
    lines = (folder / "checkpoint/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rates = [row["samples_per_s"] for row in rows if "samples_per_s" in row]
    validated = [row["validation"] for row in rows if "validation" in row]
    q25, median, q75 = np.percentile(rates, [25, 50, 75])
    evaluation = _json(folder / "eval" / "eval.json")
    return {
        "arm": arm.name,
        "task": task,
        "seed": seed,
        "parameters": _parameters(folder / "checkpoint"),
        "minutes": rows[-1]["elapsed_s"] / 60,
        "samples_per_s": {"q25": float(q25), "median": float(median), "q75": float(q75)},
        "validation": validated[-1] if validated else None,
        "held_out": _json(folder / "held_out.json"),
        "results": [
            {name: row[name] for name in _KEPT}
            | {"outcomes": "".join(_LETTERS[r["outcome"]] for r in row["rollouts"])}
            for row in _in_order(evaluation["results"], arm)
        ],
        "machine": evaluation["machine"],
        "commit": evaluation["commit"],
    }


def _in_order(rows: Sequence[dict[str, Any]], arm: Arm) -> list[dict[str, Any]]:
    """The rows by the arm's conditions, named as those are: 0 steps for a policy's default."""
    found: list[dict[str, Any]] = []
    for loops, steps in arm.conditions:
        row = next(r for r in rows if r["loops"] == loops and steps in (0, r["steps"]))
        found.append({**row, "steps": steps})
    return found


def _parameters(checkpoint: Path) -> dict[str, int]:
    theirs = _json(checkpoint / "peer.json")
    if theirs is not None:
        return dict(theirs["parameters"])
    from loopdit.policy.checkpoint import load_policy  # late: it brings torch

    return {"all": sum(p.numel() for p in load_policy(checkpoint).parameters())}


def _about(study: Study, arms: Sequence[Arm], earlier: Any) -> dict[str, Any]:
    """Of the newest evaluation in the study's folder; the earlier record's where there is none."""
    folders = [study.folder(a, t, s) for a in arms for t in study.tasks for s in study.seeds]
    evaluations = [path for folder in folders if (path := folder / "eval/eval.json").exists()]
    newest = max(evaluations, key=lambda path: path.stat().st_mtime, default=None)
    before = {"lerobot": None} if earlier is None else earlier["about"]
    about = _json(newest) if newest else before if earlier else machine_and_versions()
    theirs = (_json(folder / "checkpoint/peer.json") for folder in folders)
    versions = next((found["versions"] for found in theirs if found is not None), before["lerobot"])
    return {name: about[name] for name in ("machine", "versions", "commit")} | {"lerobot": versions}


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None
