"""What two evaluations must have in common, whatever ran them and how fast."""

import json
from pathlib import Path
from typing import Any

from loopdit.eval.runs.journal import read_journal

_TIMES = ("latency_ms", "control", "command", "restarts")


def comparable(out: Path) -> dict[str, Any]:
    """All results and all rollouts of the last run in `out`, but for times and what was typed."""
    results = json.loads((out / "eval.json").read_text())
    rollouts = [
        {name: value for name, value in record.items() if name not in ("latencies_s", "control")}
        | {"restarts": 0}
        for record in read_journal(out).runs[-1].rollouts
    ]
    return {
        "seeds": results["seeds"],
        "comparisons": results["comparisons"],
        **{
            name: [{k: v for k, v in row.items() if k not in _TIMES} for row in results[name]]
            for name in ("results", "controls")
        },
        # They end in any order.
        "rollouts": sorted(rollouts, key=lambda r: (r["subject"], str(r["condition"]), r["seed"])),
    }
