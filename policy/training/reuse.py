"""Fine-tuning: the weights of one policy in another, wherever they mean the same.

What the new policy has and the old one had not keeps its fresh start (`weight_matches` says what is
the same). A trainer calls it once, after the normaliser was fitted and before it copies the policy:

    reuse = start_from(policy, config.init, config.init_statistics)
    sys.stdout.write(reuse.table())
    provenance["init"] = reuse.provenance()  # its data's seeds are not to be evaluated on

Not when a run is resumed: that one goes on from its own checkpoint. Weights are copied as they are.
With the statistics of the new data the same weights speak of another unit, which the first steps
of training correct; where the data is alike, `statistics=True` keeps the old ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import torch

from loopdit.datasets.spec import PROPRIO, PolicySpec
from loopdit.errors import ConfigError
from loopdit.policy.checkpoint import load_checkpoint
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.training.weight_matches import changed_options, match_weight, same_elements


@dataclass(frozen=True)
class TensorReuse:
    """What became of one of the new policy's weights: `count` of its numbers were taken over."""

    name: str
    shape: tuple[int, ...]
    old_shape: tuple[int, ...] | None
    count: int
    reason: str

    @property
    def status(self) -> str:
        """In one word."""
        if self.count == prod(self.shape):
            return "reused"
        return "partly" if self.count else "new"


@dataclass(frozen=True)
class Reuse:
    """What a policy took over from the one in `folder`; `lost` names what found no place in it,
    `changed` the options under which the weights that it took over have another task now."""

    folder: str
    tensors: tuple[TensorReuse, ...]
    lost: tuple[str, ...]
    changed: tuple[str, ...]
    old_statistics: bool
    old_provenance: Mapping[str, Any]

    @property
    def count(self) -> int:
        """Numbers that were taken over."""
        return sum(tensor.count for tensor in self.tensors)

    def table(self) -> str:
        """For people: a line for each module or weight that shares a fate."""
        total = sum(prod(tensor.shape) for tensor in self.tensors)
        lines = [f"weights of {self.folder}: {self.count:,} of {total:,} numbers reused"]
        for (module, status, reason), group in groupby(self.tensors, key=_fate):
            tensors = list(group)
            if len(tensors) == 1:
                name, what = tensors[0].name, _shapes(tensors[0])
            else:
                name, what = module, f"{len(tensors)} tensors"
            lines.append(f"  {status:7} {name:24} {what:18} {reason}".rstrip())
        lines += [f"  unused  {name}" for name in self.lost]
        lines += [
            f"  changed {option}, which what is reused has to learn" for option in self.changed
        ]
        whose = self.folder if self.old_statistics else "the new data"
        return "\n".join([*lines, f"  normalised by the statistics of {whose}"]) + "\n"

    def provenance(self) -> dict[str, Any]:
        """Plain JSON for a checkpoint: what was taken over, and how that had come to be."""
        return {
            "folder": self.folder,
            "reused": self.count,
            "partly": [t.name for t in self.tensors if t.status == "partly"],
            "new": [t.name for t in self.tensors if t.status == "new"],
            "changed": list(self.changed),
            "statistics": "init" if self.old_statistics else "data",
            "provenance": dict(self.old_provenance),
        }


def start_from(policy: LoopedPolicy, folder: str, statistics: bool = False) -> Reuse:
    """Copy into `policy` what fits of the checkpoint or bundle in `folder`.

    `statistics`: its normaliser's numbers too, for the elements that both have.
    Raises CheckpointError for what cannot be read, ConfigError where nothing fits.
    """
    loaded = load_checkpoint(folder)
    reuse = Reuse(
        folder=folder,
        tensors=tuple(copy_weights(loaded.policy, policy)),
        lost=tuple(_lost(loaded.policy, policy)),
        changed=tuple(changed_options(loaded.policy.config, policy.config)),
        old_statistics=statistics,
        old_provenance=loaded.provenance,
    )
    if not reuse.count:
        said = "; ".join(sorted({t.reason for t in reuse.tensors}))
        raise ConfigError(
            f"init={folder} has nothing that fits this policy: {said}. Give the policy options "
            f"that it has, or leave out init=."
        )
    if statistics:
        old = loaded.policy
        for name, before, now in (
            (PROPRIO, old.spec.proprio, policy.spec.proprio),
            ("action", old.spec.action, policy.spec.action),
        ):
            policy.normalizer.adopt(old.normalizer, name, same_elements(before, now)[0])
    return reuse


@torch.no_grad()
def copy_weights(old: LoopedPolicy, new: LoopedPolicy) -> list[TensorReuse]:
    """Copy each weight of `old` that fits into `new`; what became of each of `new`'s."""
    done: list[TensorReuse] = []
    for name, target in new.model.named_parameters():
        source, axis, pairs, reason = match_weight(name, old, new)
        if source is not None and pairs:
            to, of = torch.tensor(pairs, device=target.device).T
            target.index_copy_(axis, to, source.to(target.device).index_select(axis, of))
        done.append(
            TensorReuse(
                name=_shown(name, new.spec),
                shape=tuple(target.shape),
                old_shape=None if source is None else tuple(source.shape),
                count=len(pairs) * target.numel() // target.shape[axis],
                reason=reason,
            )
        )
    return done


def _lost(old_policy: LoopedPolicy, new_policy: LoopedPolicy) -> Iterator[str]:
    old, new = old_policy.spec, new_policy.spec
    kept = [camera.name for camera in new.cameras]
    yield from (camera.name for camera in old.cameras if camera.name not in kept)
    for part in ("injection", "instruction", "action_blocks"):
        if getattr(old_policy.model, part) and not getattr(new_policy.model, part):
            yield part
    for before, now in ((old.proprio, new.proprio), (old.action, new.action)):
        if now.labels:
            gone = [label for label in before.labels if label not in now.labels]
            yield from (f"{before.name} {label}" for label in gone)


def _fate(tensor: TensorReuse) -> tuple[str, str, str]:
    """What tensors of one line of the table have in common: module, status, reason."""
    parts = tensor.name.split(".")
    module = ".".join(parts[:2]) if parts[0] in ("blocks", "action_blocks") else parts[0]
    return module, tensor.status, tensor.reason


def _shown(name: str, spec: PolicySpec) -> str:
    """A camera by its name rather than by its number."""
    part, _, rest = name.partition(".")
    if part != "cameras":
        return name
    index, _, inner = rest.partition(".")
    camera = spec.cameras[int(index)].name.partition(".")[2]
    return f"camera {camera}.{inner}"


def _shapes(tensor: TensorReuse) -> str:
    now = "x".join(map(str, tensor.shape))
    if tensor.old_shape is None or tensor.old_shape == tensor.shape:
        return now
    return f"{now} from {'x'.join(map(str, tensor.old_shape))}"
