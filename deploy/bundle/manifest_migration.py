"""A manifest of an older format version as one of this version: changed while it is read.

The files of a bundle are the same in every version so far. What an older manifest does not say
follows from its checkpoint, or is what was so before it could be said.
"""

from collections.abc import Mapping
from typing import Any

from loopdit.deploy.bundle.manifest import FORMAT_VERSION, FP32

READABLE_VERSIONS = (1, FORMAT_VERSION)


def migrated(data: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """`manifest.json` of version 1 as this version has it.

    `checkpoint` is what `checkpoint.json` beside it says.
    """
    return {
        **data,
        "format_version": FORMAT_VERSION,
        "max_steps": _max_steps(checkpoint),
        "precisions": [FP32],
        "loop_graphs": False,
        "adaptive": None,
        "parity": _parity(data["parity"]),
    }


def _parity(parity: Mapping[str, Any]) -> dict[str, Any]:
    """One precision, and no graph compared alone."""
    about = {
        name: parity[name] for name in parity if name not in ("precision", "tolerance", "rows")
    }
    if "rows" not in parity:
        return about
    proof = {
        "precision": parity["precision"],
        "tolerance": parity["tolerance"],
        "rows": parity["rows"],
        "counted_rows": [],
        "graphs": [],
    }
    return {**about, "proofs": [proof]}


def _max_steps(checkpoint: Mapping[str, Any]) -> int | None:
    """See `Manifest.max_steps`. The first policies did not say their objective: it was flow."""
    objective = checkpoint.get("policy", {}).get("objective", {})
    if not str(objective.get("kind", "flow")).startswith("ddpm_"):
        return None
    return int(objective["train_timesteps"])
