"""The penalty on the last loop, against its Jacobian written out, and what training makes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.policy.policies import SMALL, small_spec, small_store
from tests.policy.trainings import config, weights
from torch import Tensor

from loopdit.datasets.windows import WindowSampler
from loopdit.errors import ConfigError
from loopdit.policy.fixed_point.adapters import observation_loops
from loopdit.policy.fixed_point.contraction import contraction_penalty, state_shape
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.depth import DepthConfig
from loopdit.policy.training.processes import joined_processes
from loopdit.policy.training.train import train
from loopdit.policy.training.trainer import Trainer

INJECTED = replace(SMALL, injection=True)


def policy(of: LoopedDiTConfig = INJECTED, cameras: int = 1) -> LoopedPolicy:
    torch.manual_seed(0)
    made = LoopedPolicy(small_spec(cameras=cameras), of)
    for parameter in made.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # fresh modulations are zero
    return made


def observed(made: LoopedPolicy, count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = {
        camera.name: torch.randint(
            0, 256, (count, *camera.shape), dtype=torch.uint8, generator=generator
        )
        for camera in made.spec.cameras
    }
    return frames | {
        "proprio": torch.randn(count, *made.spec.proprio.shape, generator=generator),
        "instruction": torch.zeros(count, dtype=torch.int64),
    }


@pytest.mark.parametrize(
    ("of", "cameras"),
    [
        (INJECTED, 2),
        (replace(INJECTED, history=3), 1),
        (replace(INJECTED, instruction="task", instructions=["a", "b"]), 1),
    ],
)
def test_the_state_has_the_shape_that_a_probe_is_drawn_in(of: LoopedDiTConfig, cameras: int):
    made = policy(of, cameras)
    assert state_shape(made) == observation_loops(made, observed(made, 2)).start.shape[1:]


@pytest.mark.parametrize("loops", [2, 3])
def test_the_penalty_is_what_the_last_loop_makes_of_the_probe(loops: int):
    made = policy(replace(INJECTED, max_loops=3))
    seen = observed(made, 2)
    looped = observation_loops(made, seen)
    state = looped.start
    for loop in range(loops - 1):
        state = looped.step(state, loop)
    probe = torch.randn(state.shape, generator=torch.Generator().manual_seed(2))
    size = state[0].numel()
    jacobian = cast(
        Tensor,
        torch.autograd.functional.jacobian(
            lambda given: looped.step(given, loops - 1), state.detach()
        ),
    )
    expected = [
        (probe[row].flatten() @ jacobian[row, :, :, row].reshape(size, size)).square().mean()
        for row in range(2)
    ]
    found = contraction_penalty(made, seen, loops, probe)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    assert not contraction_penalty(made, seen, 1, probe)


def test_its_gradient_is_the_loops_and_not_the_encoders():
    made = policy()
    probe = torch.randn(2, *state_shape(made), generator=torch.Generator().manual_seed(2))
    contraction_penalty(made, observed(made, 2), 2, probe).backward()
    reached = {
        name.partition(".")[0]
        for name, parameter in made.model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == {"blocks", "injection", "loop_embedding", "time"}
    modulation = made.model.stack[0].modulation.weight.grad
    assert modulation is not None
    assert modulation.any()


def amplified(trained: LoopedPolicy) -> float:
    """The penalty's own mean over many probes."""
    seen = observed(trained, 64)
    probe = torch.randn(64, *state_shape(trained), generator=torch.Generator().manual_seed(5))
    return float(contraction_penalty(trained, seen, 2, probe).detach())


def test_a_policy_that_is_trained_with_it_amplifies_less(tmp_path: Path):
    store = small_store(tmp_path / "data")
    sampler = WindowSampler(store, INJECTED.action_horizon, 8, seed=0)
    found: dict[float, float] = {}
    for contract in (0.0, 1.0):
        depth = DepthConfig(contract=contract)
        settings = config(tmp_path, policy=INJECTED, depth=depth, steps=60, learning_rate=3e-3)
        torch.manual_seed(0)
        with joined_processes("cpu", "fp32", compiled=False, threads=1) as accelerator:
            trainer = Trainer(LoopedPolicy(store.spec, INJECTED), settings, accelerator)
            for step in range(60):
                trainer.train_step(sampler.batch(step))
        found[contract] = amplified(trainer.policy)
    assert found[1.0] < 0.8 * found[0.0], found


def test_a_batch_in_pieces_is_penalised_as_the_whole_batch(tmp_path: Path):
    small_store(tmp_path / "data")
    options: dict[str, Any] = {
        "steps": 4,
        "policy": INJECTED,
        "depth": DepthConfig(contract=0.5),
        "validation": 0.0,
    }
    for out, pieces in (("whole", 1), ("pieces", 3)):
        train(config(tmp_path, out=str(tmp_path / out), accumulate=pieces, **options))
    for name, tensor in weights(tmp_path / "whole").items():
        other = weights(tmp_path / "pieces")[name]
        torch.testing.assert_close(tensor, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"policy": SMALL}, r"contract=0\.1 does nothing without policy\.injection=true and"),
        ({"policy": replace(INJECTED, max_loops=1)}, r"policy\.max_loops of 2 or more"),
        ({"policy": replace(INJECTED, topology="dense")}, "topology=dense mixes with the noise"),
        ({"policy": INJECTED, "compile": True}, "compile=true cannot"),
    ],
)
def test_loops_that_cannot_be_made_to_contract_are_refused(
    tmp_path: Path, changed: dict[str, Any], said: str
):
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, depth=DepthConfig(contract=0.1), **changed)
    with pytest.raises(ConfigError, match=r"depth\.contract=-1 must be 0 or more, and finite"):
        DepthConfig(contract=-1)
