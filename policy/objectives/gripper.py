"""Grippers that are open or closed, learned by cross-entropy beside any objective.

Shapes as in `objective`; normalised units. In a gripper's element the model's output is the logit
of its being open, learned against how open the demonstration is (0 closed, 1 open, soft where in
between); a sampled chunk has the normalised value of open or closed there and nothing in between.

Gripper elements are excluded from the noise: the model never sees a sample's, they enter as 0 at
every level but 1. A noised two-valued element can be read through a lot of noise, so the logits
would be learned by copying it and not from the observation; and no objective's arithmetic carries a
probability along its path. What the gripper must agree with, the arm's way, is in the sample's
other elements, and the logits that count are those of the last step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from loopdit.datasets.spec import PolicySpec
from loopdit.errors import ConfigError
from loopdit.policy.objectives.objective import CLEAN, Objective, Predict, keep_known, per_action


def gripper_mask(spec: PolicySpec, words: Sequence[str]) -> Tensor:
    """(A,) bool: actions whose label contains one of `words`. Raises ConfigError for none."""
    labels = spec.action.labels
    chosen = [any(word in label for word in words) for label in labels]
    if not any(chosen):
        raise ConfigError(
            f"policy.objective.gripper=bce, and no action is called by one of {', '.join(words)}. "
            f"The actions are: {', '.join(labels) or 'without labels'}."
        )
    return torch.tensor(chosen)


def gripper_ends(spec: PolicySpec) -> Tensor:
    """Closed and open, (2, A) float32, raw: the limits of each action, 0 and 1 where it has none.

    As `actions.binarise` takes them, which refuses data without limits that is not from 0 to 1.
    """
    ends = torch.tensor([[0.0], [1.0]]).repeat(1, spec.action.shape[-1])
    if not (spec.action.low and spec.action.high):
        return ends
    limits = torch.tensor([spec.action.low, spec.action.high], dtype=torch.float32)
    return torch.where(limits.isfinite().all(0), limits, ends)


def opened(probability: Tensor, settled: float) -> Tensor:
    """Probabilities of being open (..., H, A) -> 0 or 1: what is done in each action.

    Above `settled` it opens, below 1 - `settled` it closes, in between it goes on with the action
    before (Bridge's rule has .95); the first action goes where it is nearer to.
    """
    held = (probability[..., 0, :] >= 0.5).to(probability.dtype)
    done: list[Tensor] = []
    for chance in probability.unbind(-2):
        held = torch.where(chance > settled, 1.0, torch.where(chance < 1 - settled, 0.0, held))
        done.append(held)
    return torch.stack(done, dim=-2)


@dataclass(frozen=True)
class GripperObjective:
    """See `objective.Objective`: `inner` for all elements but those of `mask` (A,)."""

    inner: Objective
    mask: Tensor
    closed: Tensor
    open: Tensor
    settled: float = 0.5

    @property
    def direct(self) -> bool:
        """As `inner`."""
        return self.inner.direct

    @property
    def needs_fresh_noise(self) -> bool:
        """As `inner`."""
        return self.inner.needs_fresh_noise

    def levels(self, count: int, generator: torch.Generator) -> Tensor:
        """As `inner`."""
        return self.inner.levels(count, generator)

    def noised(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """As `inner`, and 0 in the gripper's elements of what is not known."""
        return self._shown(self.inner.noised(chunk, noise, level), level)

    def target(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """As `inner`, and how open the gripper is, from 0 to 1."""
        return torch.where(self.mask, self._share(chunk), self.inner.target(chunk, noise, level))

    def as_target(self, output: Tensor) -> Tensor:
        """As `inner`, and the gripper's probability."""
        return torch.where(self.mask, output.sigmoid(), self.inner.as_target(output))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """As `inner`, and the cross-entropy of the gripper in nats."""
        output, target = torch.broadcast_tensors(output, target)
        entropy = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        return torch.where(self.mask, entropy, self.inner.loss(output, target))

    def chunk(self, sample: Tensor, output: Tensor, level: Tensor) -> Tensor:
        """As `inner`, and the gripper open or closed."""
        return torch.where(
            self.mask, self._value(sample, output, level), self.inner.chunk(sample, output, level)
        )

    def step(
        self,
        predict: Predict,
        sample: Tensor,
        level: Tensor,
        dt: Tensor,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """As `inner`, which never sees a gripper's sample; the step's first logits decide."""
        said: list[Tensor] = []

        def hidden(sample: Tensor, level: Tensor) -> Tensor:
            said.append(predict(self._shown(sample, level), level))
            return said[-1]

        moved = self.inner.step(hidden, sample, level, dt, fresh)
        return torch.where(self.mask, self._value(sample, said[0], level), moved)

    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        steps: int,
        fresh: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """As `inner`, then the gripper as the last logits had it."""
        said: list[tuple[Tensor, Tensor]] = []

        def hidden(sample: Tensor, level: Tensor) -> Tensor:
            output = predict(self._shown(sample, level), level)
            said.append((output, level))
            return output

        chunk = self.inner.sample(hidden, noise, steps, fresh, known)
        return torch.where(self.mask, self._value(noise, *said[-1]), chunk)

    def predictions(self, steps: int) -> int:
        """As `inner`."""
        return self.inner.predictions(steps)

    def _shown(self, sample: Tensor, level: Tensor) -> Tensor:
        """The sample without the gripper's elements, but those of known actions."""
        return torch.where(self.mask & (per_action(level) < CLEAN), 0.0, sample)

    def _share(self, chunk: Tensor) -> Tensor:
        return ((chunk - self.closed) / (self.open - self.closed)).clamp(0, 1)

    def _value(self, sample: Tensor, output: Tensor, level: Tensor) -> Tensor:
        """Closed or open by the logits, normalised; known actions as they are."""
        known = per_action(level) >= CLEAN
        chance = torch.where(known, self._share(sample), output.sigmoid())
        value = torch.lerp(self.closed, self.open, opened(chance, self.settled))
        return keep_known(sample, value, level)


def with_gripper(
    inner: Objective, mask: Tensor, ends: Tensor, settled: float = 0.5
) -> GripperObjective:
    """`inner` with the elements of `mask` (A,) by cross-entropy.

    `ends` (2, A) has closed and open in normalised units, `normalizer.chunk(gripper_ends(spec))`.
    A view of them, to be made where it is used: the ends follow the normaliser's weights.
    """
    # Other elements' ends may coincide, and a NaN that is not chosen still has a gradient.
    span = torch.stack([torch.zeros_like(ends[0]), torch.ones_like(ends[0])])
    closed, open_ = torch.where(mask, ends, span)
    return GripperObjective(inner, mask, closed, open_, settled)
