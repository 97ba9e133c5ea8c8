"""The facts of `info_facts`, for people: a row for each thing one asks first."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from loopdit.datasets.commands.info import origin_text, rows_table, size_text, tensor_row

Facts = Mapping[str, Any]
Row = tuple[str, str]


def policy_table(found: Facts) -> Table:
    """A preset's, a checkpoint's or a bundle's."""
    return rows_table(_ROWS[found["kind"]](found))


def _preset_rows(found: Facts) -> list[Row]:
    return [("preset", found["name"]), ("what", found["summary"]), *_parameter_rows(found)]


def _checkpoint_rows(found: Facts) -> list[Row]:
    goes_on = "" if found["resumable"] else ", without the state that training goes on from"
    return [
        ("checkpoint", found["path"]),
        ("model", f"{found['model_id']}, {size_text(found['bytes'])}{goes_on}"),
        ("loops", f"any from 1 to {found['loops'][-1]}"),
        *_adaptive_rows(found),
        *_policy_rows(found),
        *_training_rows(found["provenance"]),
    ]


def _bundle_rows(found: Facts) -> list[Row]:
    exported = found["exported"]
    return [
        ("bundle", found["path"]),
        ("model", f"{found['model_id']}, {size_text(found['bytes'])}"),
        ("loops", f"{_listed(found['loops'])}; {found['default_loops']} where nobody chooses"),
        ("precisions", ", ".join(found["precisions"])),
        ("denoising", f"{found['steps']} steps, temperature {found['temperature']:g}"),
        *_adaptive_rows(found),
        *_policy_rows(found),
        *_training_rows(found["provenance"]),
        (
            "exported",
            origin_text({"made by": "policy-export", "made_at": exported.get("at")} | exported),
        ),
        ("parity", _parity(found["parity"])),
        *(("latency", _latency(table)) for table in found["latency"]),
    ]


def _adaptive_rows(found: Facts) -> list[Row]:
    kept = found["adaptive"]
    if kept is None:
        return []
    if "error" in kept:
        return [("adaptive", kept["error"])]
    text = (
        f"{kept['measure']}:{kept['threshold']:.4g} takes {kept['mean_loops']:.2f} loops on "
        f"average ({kept['wanted']}, {kept['observations']:,} observations)"
    )
    return [("adaptive", text)]


def _policy_rows(found: Facts) -> list[Row]:
    spec = found["spec"]
    rate_hz = 1 / spec["control_period_s"]
    return [
        *(tensor_row(tensor) for tensor in [*spec["observations"], spec["action"]]),
        ("action frame", spec["action_frame"]),
        ("chunk", f"{found['horizon']} actions at {rate_hz:g} Hz"),
        ("settings", ", ".join(f"{name} {value}" for name, value in _flat(found["policy"]))),
        *_parameter_rows(found),
    ]


def _parameter_rows(found: Facts) -> list[Row]:
    frozen = found["parameters"] - found["trainable"]
    parts = [
        f"{name} {part['parameters']:,}"
        + (f" ({part['trainable']:,} trainable)" if part["trainable"] < part["parameters"] else "")
        for name, part in found["parts"].items()
    ]
    total = f"{found['parameters']:,}"
    return [
        ("parameters", f"{total}, {found['trainable']:,} trainable" if frozen else total),
        ("by part", "\n".join(parts)),
    ]


def _training_rows(provenance: Facts) -> list[Row]:
    config = provenance.get("config", {})
    step, steps = provenance.get("step"), config.get("steps")
    words = [
        f"step {step:,}" + (f" of {steps:,}" if steps else "") if step is not None else "",
        f"{provenance['elapsed_s'] / 60:.1f} min" if "elapsed_s" in provenance else "",
        f"seed {config['seed']}" if "seed" in config else "",
        f"on {provenance['device']}" if "device" in provenance else "",
    ]
    data = [
        str(config.get("data", "")),
        f"{provenance['episodes']:,} episodes" if "episodes" in provenance else "",
        f"digest {provenance['data_digest']}" if "data_digest" in provenance else "",
    ]
    begun = provenance.get("init", {}).get("folder")
    rows = [
        ("trained", ", ".join([word for word in words if word]) or "not told"),
        ("data", ", ".join([word for word in data if word])),
        ("begun from", str(begun or "")),
        ("by", origin_text({"made by": "policy-train"} | dict(provenance))),
    ]
    return [row for row in rows if row[1]]


def _parity(parity: Facts) -> str:
    """A line for each precision."""
    proofs: Sequence[Facts] = parity.get("proofs", ())
    lines = [
        f"{proof['precision']} actions within {_worst(proof):.1e} of the trained policy's "
        f"(tolerance {proof['tolerance']:g}; {parity['backend']}, "
        f"{parity['observations']} observations, "
        f"K = {_listed([row['loops'] for row in proof['rows']])})"
        for proof in proofs
    ]
    return "\n".join(lines) or "not measured"


def _worst(proof: Facts) -> float:
    return max(float(row["max_abs_error"]) for row in proof["rows"])


def _latency(table: Facts) -> str:
    """A line for each row, p50 and p99 of a chunk, and the machine they were measured on."""
    lines = [
        f"K={row['loops']}: p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms "
        f"({row['backend']} {row['precision']}, {row['threads']} threads, n = {row['repetitions']})"
        for row in table["rows"]
    ]
    machine = table["machine"]
    return "\n".join([*lines, f"on {machine['cpu']}, {machine['cores']} cores"])


def _flat(settings: Facts, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


_ROWS = {"preset": _preset_rows, "checkpoint": _checkpoint_rows, "bundle": _bundle_rows}
