import pytest
import torch
from torch import Tensor, nn

from loopdit.policy.objectives.gripper import with_gripper
from loopdit.policy.objectives.objective import Objective, ObjectiveConfig
from loopdit.policy.objectives.registry import make_objective

pytestmark = pytest.mark.system

MASK = torch.tensor([False, True, False])
ENDS = torch.tensor([[0.0, -0.5, 0.0], [1.0, 1.5, 1.0]])


class Step(nn.Module):
    """One sampling step of a small model, as a graph has it."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        self.model = nn.Linear(3, 3)

    def forward(self, sample: Tensor, t: Tensor, dt: Tensor, fresh: Tensor) -> Tensor:
        def predict(sample: Tensor, level: Tensor) -> Tensor:
            return torch.tanh(self.model(sample)) + level[:, None, None]

        return self.objective.step(predict, sample, t, dt, fresh)


@pytest.mark.parametrize("gripper", [False, True])
@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        ("flow", "euler"),
        ("flow", "heun"),
        ("ddpm_eps", "ddim"),
        ("ddpm_x0", "ddpm"),
        ("ddpm_v", "ddim"),
        ("regression", ""),
    ],
)
def test_a_step_is_one_graph_for_every_batch_and_time(kind: str, sampler: str, gripper: bool):
    objective = make_objective(ObjectiveConfig(kind=kind, sampler=sampler))
    if gripper:
        objective = with_gripper(objective, MASK, ENDS)
    torch.manual_seed(0)
    step = Step(objective).eval()
    batch = torch.export.Dim("batch")
    inputs = (torch.randn(2, 4, 3), torch.zeros(2), torch.full((2,), 0.1), torch.randn(2, 4, 3))
    shapes = tuple({0: batch} for _ in inputs)
    graph = torch.export.export(step, inputs, dynamic_shapes=shapes).module()
    for steps in (1, 3, 10):
        for i in range(steps):
            sample, fresh = torch.randn(2, 5, 4, 3)
            t, dt = torch.full((5,), i / steps), torch.full((5,), 1 / steps)
            expected = step(sample, t, dt, fresh)
            torch.testing.assert_close(graph(sample, t, dt, fresh), expected)
