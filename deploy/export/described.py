"""What a manifest says of every exported policy alike, with graphs or without."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.bundle.bundle import file_entry, model_id
from loopdit.deploy.bundle.manifest import WEIGHTS, Manifest
from loopdit.deploy.export.config import ExportConfig
from loopdit.deploy.export.report import numbers_for_people
from loopdit.machine import machine_and_versions
from loopdit.policy.normalizer import Normalizer


class Exported(Protocol):
    """What is asked of a policy."""

    normalizer: Normalizer

    @property
    def spec(self) -> PolicySpec:
        """What it observes and commands."""
        ...

    @property
    def horizon(self) -> int:
        """Actions in a chunk."""
        ...

    @property
    def temperature(self) -> float:
        """Spread of the starting noise, where the export does not say another."""
        ...


def described(
    policy: Exported,
    provenance: Mapping[str, Any],
    loops: tuple[int, ...],
    opset: int | None,
    config: ExportConfig,
    staging: Path,
) -> Manifest:
    """Of a `policy` whose files are all in `staging`; `opset`: of its graphs."""
    return Manifest(
        spec=policy.spec,
        horizon=policy.horizon,
        loops=loops,
        default_loops=config.default_loops or loops[-1],
        steps=config.steps,
        temperature=policy.temperature if config.temperature is None else config.temperature,
        model_id=model_id(file_entry(staging / WEIGHTS).sha256, policy.spec),
        files={path.name: file_entry(path) for path in staging.iterdir()},
        normalisation=numbers_for_people(policy.normalizer),
        provenance=provenance,
        exported={"at": datetime.now(UTC).isoformat(timespec="seconds"), "opset": opset}
        | machine_and_versions(),
    )
