"""Whether a training may go on in a folder, and how: only with the same data, model and options."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.zarr_files import METADATA
from loopdit.errors import CheckpointError, ConfigError
from loopdit.policy.checkpoint import (
    LOOPED,
    MANIFEST,
    TrainingState,
    load_training_state,
    read_raw,
)
from loopdit.policy.training.steps import StepTrainer

# What may differ when a run goes on: how long, where and how often, but not what is computed.
_FREE_ON_RESUME = frozenset(
    {
        *("data", "out", "steps", "minutes", "device", "threads", "workers", "cache", "cache_gib"),
        *("save_every_s", "resume", "overwrite", "validate_every", "evaluate", "log"),
        *("checkpoint", "shard", "latents", "latents_batch"),
    }
)


class ResumedRun(Protocol):
    """The options of a training: a dataclass that has a default for each."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def data(self) -> Any:
        """Episode stores."""
        ...

    @property
    def stores(self) -> list[str]:
        """Their names."""
        ...

    @property
    def resume(self) -> bool:
        """Whether it goes on from a checkpoint."""
        ...

    @property
    def overwrite(self) -> bool:
        """Whether it replaces one."""
        ...


def refuse_to_overwrite(config: ResumedRun, out: Path) -> None:
    """Raise CheckpointError where a checkpoint is in the way, or missing, ConfigError where `out`
    is an episode store."""
    if (out / METADATA).exists():
        raise ConfigError(f"out={out} is an episode store. Choose another folder.")
    there = (out / MANIFEST).exists()
    if there and not (config.resume or config.overwrite):
        raise CheckpointError(
            f"{out} already holds a checkpoint. Go on with resume=true, replace it with "
            f"overwrite=true, or choose another out=."
        )
    if config.resume and not there:
        raise CheckpointError(f"{out} holds no checkpoint to resume. Leave out resume=true.")


def require_same_run(
    config: ResumedRun,
    spec: PolicySpec,
    provenance: dict[str, Any],
    out: Path,
    kind: str = LOOPED,
) -> dict[str, Any]:
    """The provenance of the checkpoint in `out`. Raises SpecMismatch or CheckpointError where that
    is of other data, another policy than one of this `kind` with this `spec`, or other options."""
    before = read_raw(out, kind)
    # First: some options are in the spec, too, and not what the data is blamed for.
    _require_same_options(before.provenance["config"], config, out)
    data = config.stores[0] if len(config.stores) == 1 else config.data
    before.spec.require_equal(
        spec,
        mine=f"the checkpoint {out}",
        theirs=f"the data set {data}",
        remedy="Resume with the data it was trained on, or choose another out=.",
    )
    if before.provenance["data_digest"] != provenance["data_digest"]:
        raise CheckpointError(
            f"{out} was trained on other episodes than {data} holds now. Resume with the same "
            f"data, start afresh with overwrite=true, or learn on from its weights: init={out} "
            f"out=FOLDER."
        )
    return before.provenance


def begun_from(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The "init" of a fine-tuning's provenance, whose folder may be gone by now; else nothing."""
    return {"init": provenance["init"]} if "init" in provenance else {}


def resume(trainer: StepTrainer, out: Path) -> TrainingState:
    """Put the trainer where the checkpoint in `out` was; returns all that was saved beside."""
    state, average = load_training_state(out)
    trainer.load_state(state, average)
    return state


def _require_same_options(before: dict[str, Any], config: ResumedRun, out: Path) -> None:
    now = _by_name(asdict(config))
    then = _by_name(asdict(type(config)())) | _by_name(before)
    changed = [
        f"{name}={value} where it had {then[name]}"
        for name, value in now.items()
        if name.partition(".")[0] not in _FREE_ON_RESUME and value != then[name]
    ]
    if changed:
        raise CheckpointError(
            f"{out} was trained with other options: {'; '.join(changed)}. Resume with the same "
            f"ones, or start afresh with overwrite=true."
        )


def _by_name(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """As they are written on the command line: "policy.width" and so on."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= _by_name(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
