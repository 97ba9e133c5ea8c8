"""The morphology policy in raw units: one set of weights for several bodies at once.

Shapes: B batch, P observed numbers and A motors of the body at hand, H action horizon. A body comes
with each call; what is learned, and how a chunk is sampled, is the objective's
(`policy.objectives`).
"""

import torch
from torch import Tensor, nn

from loopdit.policy.morphology.embodiment import Embodiment
from loopdit.policy.morphology.morphology_dit import MorphologyConfig, MorphologyDiT
from loopdit.policy.objectives.objective import ObjectiveConfig
from loopdit.policy.objectives.registry import make_objective


class MorphologyPolicy(nn.Module):
    """A morphology model with its objective."""

    def __init__(self, config: MorphologyConfig, objective: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config
        self.objective = make_objective(objective)
        self.model = MorphologyDiT(config)

    def loss(
        self,
        body: Embodiment,
        observation: Tensor,
        actions: Tensor,
        valid: Tensor,
        generator: torch.Generator,
        loops: int | None = None,
    ) -> Tensor:
        """Mean loss of the actions (B, H, A) inside their episode, `valid` (B, H), and ponder."""
        chunk = body.chunk(actions)
        level = self.objective.levels(len(chunk), generator)
        noise = torch.randn(chunk.shape, generator=generator)
        sample = self.objective.noised(chunk, noise, level)
        output, looped = self.model(body, body.observation(observation), sample, level, loops)
        errors = self.objective.loss(output, self.objective.target(chunk, noise, level))
        return (errors.mean(-1) * valid).sum() / valid.sum() + looped.ponder

    @torch.inference_mode()
    def act(
        self,
        body: Embodiment,
        observation: Tensor,
        noise: Tensor,
        steps: int = 1,
        loops: int | None = None,
    ) -> Tensor:
        """Raw observation (B, P) and noise (B, H, A) -> raw actions (B, H, A)."""
        seen = body.observation(observation)

        def predict(sample: Tensor, level: Tensor) -> Tensor:
            return self.model(body, seen, sample, level, loops)[0]

        return body.actions(self.objective.sample(predict, noise, steps))
