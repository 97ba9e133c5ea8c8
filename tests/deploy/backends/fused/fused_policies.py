"""Every kind of policy that the fused kernels are for, what it is given, and what it does."""

from dataclasses import replace

import numpy as np
import torch
from tests.policy.policies import SMALL, small_spec

from loopdit.datasets.spec import COMMITTED, Observation, PolicySpec, TensorSpec
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

BATCH, STEPS = 3, 4
TWO_CAMERAS = small_spec(cameras=2)
GRIPPER = replace(
    TWO_CAMERAS,
    action=TensorSpec(
        "action", (2,), "float32", ("x", "gripper"), ("m", "1"), low=(-1, 0), high=(1, 1)
    ),
)
JOINTS = PolicySpec(
    observations=(
        TensorSpec("images.camera", (20, 20, 3), "uint8"),
        TensorSpec("proprio", (3,), "float32", ("shoulder", "elbow", "hand")),
    ),
    action=TensorSpec("action", (2,), "float32", ("shoulder", "hand"), low=(-9, -9), high=(9, 9)),
    action_frame="base of the robot",
    control_period_s=0.1,
)
TOLD = ["lift the cube", "stack the cubes"]
POLICIES: dict[str, tuple[PolicySpec, LoopedDiTConfig]] = {
    "plain": (TWO_CAMERAS, SMALL),
    "no cameras": (small_spec(cameras=0), SMALL),
    "odd frames": (small_spec(size=21), SMALL),
    # More tokens than a tile has rows, more keys than a vector has lanes, a width of three heads.
    "wide": (TWO_CAMERAS, replace(SMALL, width=96, blocks=2, action_horizon=22, history=2)),
    "pooled": (TWO_CAMERAS, replace(SMALL, encoder="pooled:2", max_loops=3)),
    "shared cells": (small_spec(size=40), replace(SMALL, encoder="pooled:3")),
    "patches": (TWO_CAMERAS, replace(SMALL, encoder="patches:8", width=64)),
    # As many rows as a tile of the GPU's has, or nearly, and a width that is no power of two.
    "narrow tokens": (
        TWO_CAMERAS,
        replace(SMALL, width=96, action_horizon=9, actions_per_token=1),
    ),
    "many tokens": (small_spec(cameras=2, size=24), replace(SMALL, encoder="patches:4")),
    "words": (TWO_CAMERAS, replace(SMALL, instruction="words", instructions=TOLD)),
    "task": (TWO_CAMERAS, replace(SMALL, instruction="task", instructions=TOLD)),
    "optional cameras": (TWO_CAMERAS, replace(SMALL, optional_cameras=True)),
    "injection": (TWO_CAMERAS, replace(SMALL, injection=True, max_loops=3)),
    "action expert": (TWO_CAMERAS, replace(SMALL, action_expert=True, max_loops=3)),
    "in flight": (TWO_CAMERAS, replace(SMALL, in_flight=3)),
    "rolled": (JOINTS, replace(SMALL, in_flight=3, told="rolled")),
    "gripper": (GRIPPER, replace(SMALL, objective=ObjectiveConfig(gripper="bce"))),
    "settled gripper in flight": (
        GRIPPER,
        replace(
            SMALL,
            action_horizon=8,
            in_flight=3,
            objective=ObjectiveConfig(gripper="bce", gripper_settled=0.8),
        ),
    ),
    "eps": (TWO_CAMERAS, replace(SMALL, objective=ObjectiveConfig("ddpm_eps", clip=1.0))),
    "x0": (TWO_CAMERAS, replace(SMALL, objective=ObjectiveConfig("ddpm_x0", clip=0.0))),
    "v in flight": (TWO_CAMERAS, replace(SMALL, in_flight=2, objective=ObjectiveConfig("ddpm_v"))),
    "regression": (
        TWO_CAMERAS,
        replace(SMALL, in_flight=2, objective=ObjectiveConfig("regression")),
    ),
    "everything": (
        TWO_CAMERAS,
        replace(
            SMALL,
            **{"width": 64, "blocks": 2, "history": 2, "in_flight": 3, "injection": True},
            **{"instruction": "words", "instructions": TOLD, "optional_cameras": True},
            action_expert=True,
        ),
    ),
}


def random_policy(spec: PolicySpec, config: LoopedDiTConfig) -> LoopedPolicy:
    """No two of its weights alike, nor its units."""
    torch.manual_seed(0)
    policy = LoopedPolicy(spec, config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name in ("proprio", "action"):
            mean = policy.normalizer.get_buffer(f"{name}_mean")
            mean.copy_(0.1 * torch.randn_like(mean))
            policy.normalizer.get_buffer(f"{name}_spread").uniform_(0.5, 2.0)
    return policy


def observations(policy: LoopedPolicy) -> Observation:
    """A batch of all that the policy is given; a camera of the first is absent, and each has
    another number of actions in flight."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for tensor in (*policy.spec.observations, *policy.encode_inputs):
        shape = (BATCH, *tensor.shape)
        if tensor.is_image:
            found[tensor.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        elif tensor.name == AVAILABLE:
            found[tensor.name] = np.ones(shape, bool)
            found[tensor.name][0, -1] = False
        elif tensor.name == INSTRUCTION:
            found[tensor.name] = rng.integers(0, 2, shape)
        else:
            found[tensor.name] = rng.normal(size=shape).astype(np.float32)
    if COMMITTED in found:
        most = found[COMMITTED].shape[1]
        for i, row in enumerate(found[COMMITTED]):
            row[:, -1] = np.arange(most) < i
            row *= row[:, -1:]
    return found


def noises(policy: LoopedPolicy) -> np.ndarray:
    shape = (BATCH, policy.horizon, *policy.spec.action.shape)
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def expected(policy: LoopedPolicy, loops: int, steps: int = STEPS) -> np.ndarray:
    seen = {name: torch.from_numpy(value) for name, value in observations(policy).items()}
    return policy.act(seen, torch.from_numpy(noises(policy)), loops, steps).numpy()


def largest_error(policy: LoopedPolicy, found: np.ndarray, reference: np.ndarray) -> float:
    """In normalised units."""
    return float(np.abs((found - reference) / policy.normalizer.action_spread.numpy()).max())
