"""Rows as an evaluation of a policy with a dial makes them."""

from typing import Any

from tests.eval.runs.test_results import rollouts

from loopdit.eval.runs.results import Row, result_row

CONDITION: dict[str, Any] = {
    "env": "lift",
    "policy": "tcp://127.0.0.1:5555",
    "label": "",
    "kind": "served",
    "loops": 1,
    "steps": 10,
    "model_id": "0123456789abcdef",
    "instruction": "pick up the <red> cube",
    "execute_horizon": 8,
    "stages": ("grasped", "lifted"),
    "videos": [],
    "command": "policy-eval policy=tcp://127.0.0.1:5555 'loops=[1,2]'",
}


def report_row(outcomes: str, **changed: Any) -> Row:
    """One rollout for each letter: s success, f failure, u unstable, e error."""
    return result_row({**CONDITION, **changed}, rollouts(outcomes), 0.1)


def expert_row(outcomes: str, **changed: Any) -> Row:
    """The control beside it."""
    about = {"kind": "expert", "policy": "expert", "loops": None, "steps": None, "model_id": None}
    return report_row(outcomes, **{**about, **changed})
