"""The threshold at which adaptive depth takes a wanted number of loops, found on data.

What the rule compares (`adaptive_depth.loop_changes`) is measured once for many observations; then
the loops that any threshold takes follow by counting. The result is kept in ADAPTIVE_DEPTH beside a
checkpoint or in a bundle, and belongs to those weights alone.

Shapes: M observations, K loops, so changes are (M, K - 1), of the loops from the second on.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loopdit.errors import CheckpointError, ConfigError
from loopdit.policy.adaptive_depth import loop_changes
from loopdit.policy.looped_dit_config import depths_text
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.stopping_rule import CHUNK, LEAST_LOOPS, StoppingRule, first_stop
from loopdit.whole_file import whole_file

ADAPTIVE_DEPTH = "adaptive_depth.json"
FORMAT, FORMAT_VERSION = "loopdit-adaptive-depth", 1


@dataclass(frozen=True)
class Calibration:
    """A threshold, and what it does on the `observations` that it was found on.

    mean_loops: over those. shares (K,): of them that took 1, 2, ... loops. wanted: what was asked
    for, in words. weights_sha256: of the weights it belongs to.
    """

    measure: str
    threshold: float
    mean_loops: float
    shares: tuple[float, ...]
    observations: int
    wanted: str
    weights_sha256: str

    @property
    def rule(self) -> StoppingRule:
        """To act by."""
        return StoppingRule(self.threshold, self.measure)


def calibrate(
    policy: LoopedPolicy,
    observations: Iterable[Mapping[str, Tensor]],
    weights_sha256: str,
    mean_loops: float | None = None,
    quantile: float | None = None,
    measure: str = CHUNK,
    temperature: float | None = None,
) -> Calibration:
    """On batches of raw observations, to either of two ends.

    mean_loops: the smallest threshold that takes at most so many on average. quantile: the one that
    this share of the changes of the last loop is below, which calls settled what the deepest loop
    leaves settled. `temperature` is the spread of the starting noise when serving, the policy's own
    where it is None. Raises ConfigError for neither or both of them, and for a mean that no
    threshold has.
    """
    if (mean_loops is None) == (quantile is None):
        raise ConfigError("a threshold is found for mean_loops or for quantile: give one of them.")
    spread = policy.temperature if temperature is None else temperature
    generator = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    for batch in observations:
        count = len(next(iter(batch.values())))
        noise = torch.randn(count, policy.horizon, *policy.spec.action.shape, generator=generator)
        fresh = None  # of the one step that a guess is made in
        if policy.objective.needs_fresh_noise:
            fresh = spread * torch.randn(noise.shape, generator=generator)[None]
        found.append(loop_changes(policy, batch, spread * noise, measure, fresh))
    if not found or first_stop(policy.depths) >= policy.max_loops:
        raise ConfigError(
            f"nothing to calibrate: {sum(map(len, found))} observations, and a policy of K = "
            f"{depths_text(policy.depths)}. It takes one observation, and a K of {LEAST_LOOPS} or "
            f"more beside the deepest."
        )
    changes = torch.cat(found)
    if mean_loops is not None:
        threshold = threshold_for(changes, mean_loops, policy.max_loops)
        wanted = f"mean_loops={mean_loops:g}"
    else:
        assert quantile is not None
        threshold, wanted = threshold_at(changes, quantile), f"quantile={quantile:g}"
    loops = loops_taken(changes, threshold, policy.max_loops)
    return Calibration(
        measure=measure,
        threshold=threshold,
        mean_loops=float(loops.double().mean()),
        shares=tuple(float((loops == k).double().mean()) for k in range(1, policy.max_loops + 1)),
        observations=len(changes),
        wanted=wanted,
        weights_sha256=weights_sha256,
    )


def loops_taken(changes: Tensor, threshold: float, deepest: int) -> Tensor:
    """(M,): the first loop whose change is below the threshold, the deepest where none is.

    changes (M, n): of the last n loops."""
    last = torch.ones(len(changes), 1, dtype=torch.bool)
    settled = torch.cat([changes[:, :-1] < threshold, last], dim=1)  # at K it stops in any case
    return deepest - changes.shape[1] + 1 + settled.int().argmax(dim=1)


def threshold_for(changes: Tensor, mean_loops: float, deepest: int) -> float:
    """The smallest threshold with at most `mean_loops` on average."""
    first = deepest - changes.shape[1] + 1
    if not first <= mean_loops <= deepest:
        raise ConfigError(
            f"mean_loops={mean_loops:g} is not from {first} to {deepest}, which is what this "
            f"policy's thresholds take."
        )
    # The loops change only where a threshold passes a change; a greater threshold never takes more.
    passed = changes.flatten().unique()
    candidates = torch.cat([passed.new_zeros(1), passed.nextafter(passed.new_tensor(torch.inf))])
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        taken = loops_taken(changes, float(candidates[middle]), deepest).double().mean()
        low, high = (low, middle) if taken <= mean_loops else (middle + 1, high)
    return float(candidates[low])


def threshold_at(changes: Tensor, quantile: float) -> float:
    """What a share `quantile` of the last loop's changes is below."""
    if not 0 <= quantile <= 1:
        raise ConfigError(f"quantile={quantile:g} is not from 0 to 1.")
    return float(changes[:, -1].quantile(quantile))


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write or replace it beside the weights that are in `folder`."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(calibration)}
    with whole_file(folder / ADAPTIVE_DEPTH) as path:
        path.write_text(json.dumps(content, indent=1) + "\n")


def load_calibration(folder: Path, weights_sha256: str) -> Calibration | None:
    """That of the weights in `folder`, None where there is none.

    Raises CheckpointError for one that cannot be read or belongs to other weights.
    """
    path = folder / ADAPTIVE_DEPTH
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        if (data.pop("format"), data.pop("format_version")) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"not {FORMAT!r} version {FORMAT_VERSION}")
        data["shares"] = tuple(data["shares"])
        found = Calibration(**data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Calibrate again.") from error
    if found.weights_sha256 != weights_sha256:
        raise CheckpointError(
            f"{path} was calibrated for other weights than {folder} has now. Calibrate again."
        )
    return found
