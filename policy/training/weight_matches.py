"""Which place of one policy's weight means what which place of another's does.

Cameras are the same by name, words and tasks by themselves, elements of proprio and action by
label, loops, blocks and tokens of a chunk by number, past steps by age. What a model says of an
action depends on its objective: the noise, the chunk, their velocity, or a gripper's logit. Knows
the parameters of `LoopedDiT` by name; copies nothing.
"""

from typing import NamedTuple

from torch import Tensor

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.diffusion import EPS, V
from loopdit.policy.objectives.objective import BCE, DIFFUSIONS

# Options of an objective that only diffusions look at.
_LEVELS = ("train_timesteps", "beta_schedule")

Pairs = list[tuple[int, int]]  # (place in the new tensor, place in the old one)


class Match(NamedTuple):
    """The old weight that a new one is like, None for none, and which places along `axis` are
    which; the other axes are of one size. `reason` says what is missing, empty for nothing."""

    source: Tensor | None
    axis: int
    pairs: Pairs
    reason: str = ""


def match_weight(name: str, old: LoopedPolicy, new: LoopedPolicy) -> Match:
    """For the parameter `name` of `new.model`."""
    part, _, rest = name.partition(".")
    spec, old_spec = new.spec, old.spec
    if part == "cameras":
        index, _, inner = rest.partition(".")
        names = [camera.name for camera in old_spec.cameras]
        camera = spec.cameras[int(index)].name
        if camera not in names:
            return Match(None, 0, [], "a camera it did not have")
        if old.config.encoder != new.config.encoder:
            return Match(None, 0, [], _encoder(old, new))
        return _rows(name, old, new, None, was=f"cameras.{names.index(camera)}.{inner}")
    if old.config.width != new.config.width:
        return Match(None, 0, [], _width(old, new))
    if part == "observation_position":
        if old.config.encoder != new.config.encoder:
            return Match(None, 0, [], _encoder(old, new))
        tokens = new.model.camera_tokens, old.model.camera_tokens
        return _rows(name, old, new, _places(old_spec, spec, *tokens))
    if name == "proprio.weight":
        return _rows(name, old, new, same_elements(old_spec.proprio, spec.proprio), axis=1)
    group, old_group = new.config.actions_per_token, old.config.actions_per_token
    if part in ("action_in", "action_out", "action_position") and group != old_group:
        return Match(None, 0, [], f"actions_per_token={group} where it had {old_group}")
    if part in ("action_in", "action_out") and name != "action_in.bias":
        pairs, reason = same_elements(old_spec.action, spec.action)
        size, old_size = spec.action.shape[-1], old_spec.action.shape[-1]
        if part == "action_out":
            pairs, reason = _said_alike(pairs, reason, old, new)
        places = [(g * size + a, g * old_size + b) for g in range(group) for a, b in pairs]
        return _rows(name, old, new, (places, reason), axis=int(name == "action_in.weight"))
    if name in ("instruction.words.weight", "instruction.tasks.weight"):
        return _told(name, old, new)
    if part == "action_blocks" and not old.config.action_blocks:  # one stack was for both
        return _rows(name, old, new, None, was=f"blocks.{rest}")
    if part in ("action_position", "loop_embedding", "history_position"):
        return _numbered(name, old, new)
    return _rows(name, old, new, None)


def same_elements(old: TensorSpec, new: TensorSpec) -> tuple[Pairs, str]:
    """Elements of a vector that are the same: by label, without labels by number."""
    size, old_size = new.shape[-1], old.shape[-1]
    if not (new.labels and old.labels):
        if size == old_size:
            return [(i, i) for i in range(size)], ""
        return [], f"{size} elements where it had {old_size}, and no labels to match them by"
    pairs = [(i, old.labels.index(x)) for i, x in enumerate(new.labels) if x in old.labels]
    missing = [label for label in new.labels if label not in old.labels]
    return pairs, f"new: {', '.join(missing)}" if missing else ""


def changed_options(old: LoopedDiTConfig, new: LoopedDiTConfig) -> list[str]:
    """Options by which the same weights meet other samples, states or levels than they did, as
    "policy.injection=true where it had false"."""
    before, now = (
        {f"objective.{n}": getattr(c.objective, n) for n in ("kind", *_LEVELS, "gripper")}
        | {name: getattr(c, name) for name in ("injection", "topology", "in_flight", "told")}
        for c in (old, new)
    )
    if not {old.objective.kind, new.objective.kind} <= {*DIFFUSIONS}:
        now |= {f"objective.{name}": before[f"objective.{name}"] for name in _LEVELS}
    return [
        f"policy.{name}={_typed(value)} where it had {_typed(before[name])}"
        for name, value in now.items()
        if value != before[name]
    ]


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _said_alike(
    pairs: Pairs, reason: str, old: LoopedPolicy, new: LoopedPolicy
) -> tuple[Pairs, str]:
    """Of these elements of an action those of which both models say the same."""
    before, now = _said(old), _said(new)
    other = [f"says {now[a]} where it said {before[b]}" for a, b in pairs if now[a] != before[b]]
    kept = [(a, b) for a, b in pairs if now[a] == before[b]]
    return kept, "; ".join(filter(None, (reason, *dict.fromkeys(other))))


def _said(policy: LoopedPolicy) -> list[str]:
    """What the model says of each element of an action."""
    config = policy.config.objective
    what = {EPS: "the noise", V: "the velocity"}.get(config.kind, "the action")
    said = [what] * policy.spec.action.shape[-1]
    if config.gripper == BCE:
        mask = policy.get_buffer("gripper_mask")
        said = ["a logit" if own else what for own in mask.tolist()]
    return said


def _places(
    old: PolicySpec, new: PolicySpec, tokens: list[int], old_tokens: list[int]
) -> tuple[Pairs, str]:
    """Rows of the observation tokens' places: each camera's `tokens`, then the one of proprio."""
    names = [camera.name for camera in old.cameras]
    pairs: Pairs = []
    missing: list[str] = []
    for i, camera in enumerate(new.cameras):
        if camera.name in names:
            at = names.index(camera.name)
            first, old_first = sum(tokens[:i]), sum(old_tokens[:at])
            pairs += [
                (first + row, old_first + row) for row in range(min(tokens[i], old_tokens[at]))
            ]
        else:
            missing.append(camera.name)
    pairs.append((sum(tokens), sum(old_tokens)))
    return pairs, f"new: {', '.join(missing)}" if missing else ""


def _numbered(name: str, old: LoopedPolicy, new: LoopedPolicy) -> Match:
    """Rows that are counted: from the front, past steps from the latest back."""
    before = _parameter(old, name)
    if before is None:
        return Match(None, 0, [], "it had no history")
    count, old_count = len(new.model.get_parameter(name)), len(before)
    both = min(count, old_count)
    skipped = (count - both, old_count - both) if name == "history_position" else (0, 0)
    pairs = [(skipped[0] + i, skipped[1] + i) for i in range(both)]
    reason = f"{count} where it had {old_count}" if count > old_count else ""
    return _rows(name, old, new, (pairs, reason))


def _told(name: str, old: LoopedPolicy, new: LoopedPolicy) -> Match:
    """Rows of the words that both know, padding and the unknown word included, or of the tasks."""
    before, now = old.config.vocabulary, new.config.vocabulary
    if before is None or now is None or old.config.instruction != new.config.instruction:
        return Match(None, 0, [], "it was told its task in another way, or not at all")
    words = name == "instruction.words.weight"
    known, wanted = (v.words if words else v.instructions for v in (before, now))
    first = now.size - len(now.words) if words else 0
    pairs: Pairs = [(i, i) for i in range(first)]
    pairs += [(first + i, first + known.index(one)) for i, one in enumerate(wanted) if one in known]
    missing = [one for one in wanted if one not in known]
    return _rows(name, old, new, (pairs, f"new: {', '.join(missing)}" if missing else ""))


def _rows(
    name: str,
    old: LoopedPolicy,
    new: LoopedPolicy,
    places: tuple[Pairs, str] | None,
    axis: int = 0,
    was: str = "",
) -> Match:
    """`places` along `axis`, the whole weight where it is None; `was`: the old one's name."""
    source, target = _parameter(old, was or name), new.model.get_parameter(name)
    if source is None:
        return Match(None, axis, [], "it had none")
    sizes, old_sizes = list(target.shape), list(source.shape)
    if places is None:
        places = [(i, i) for i in range(sizes[axis])], ""
    else:
        del sizes[axis], old_sizes[axis]
    if sizes != old_sizes:
        return Match(source, axis, [], _width(old, new))
    return Match(source, axis, *places)


def _encoder(old: LoopedPolicy, new: LoopedPolicy) -> str:
    return f"encoder={new.config.encoder} where it had {old.config.encoder}"


def _width(old: LoopedPolicy, new: LoopedPolicy) -> str:
    return f"width={new.config.width} where it had {old.config.width}"


def _parameter(policy: LoopedPolicy, name: str) -> Tensor | None:
    return dict(policy.model.named_parameters()).get(name)
