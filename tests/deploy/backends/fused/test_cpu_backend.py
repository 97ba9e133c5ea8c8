"""The C++ kernels against the trained module, for every kind of policy that they are for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.policy.policies import SMALL, small_spec

from loopdit.datasets.spec import COMMITTED, Observation, PolicySpec, TensorSpec
from loopdit.deploy.backends import load_backend
from loopdit.deploy.backends.fused.cpu_backend import FusedCpuBackend
from loopdit.deploy.backends.fused.cpu_library import cpu_library
from loopdit.deploy.backends.registry import KINDS
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.errors import BundleError
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

pytestmark = pytest.mark.skipif(
    KINDS["fused"].unavailable() is not None, reason=f"fused {KINDS['fused'].unavailable()}"
)

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
    "words": (TWO_CAMERAS, replace(SMALL, instruction="words", instructions=TOLD)),
    "task": (TWO_CAMERAS, replace(SMALL, instruction="task", instructions=TOLD)),
    "optional cameras": (TWO_CAMERAS, replace(SMALL, optional_cameras=True)),
    "injection": (TWO_CAMERAS, replace(SMALL, injection=True, max_loops=3)),
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


def fused(policy: LoopedPolicy, precision: str = "fp32") -> FusedCpuBackend:
    def require_loops(loops: int) -> None:
        assert loops in policy.depths

    return FusedCpuBackend(policy, precision, require_loops)


def largest_error(policy: LoopedPolicy, found: np.ndarray, reference: np.ndarray) -> float:
    """In normalised units."""
    return float(np.abs((found - reference) / policy.normalizer.action_spread.numpy()).max())


@pytest.mark.parametrize(("spec", "config"), POLICIES.values(), ids=POLICIES.keys())
def test_it_acts_as_the_trained_policy_does_at_every_depth(
    spec: PolicySpec, config: LoopedDiTConfig
):
    policy = random_policy(spec, config)
    backend = fused(policy)
    observation, noise = observations(policy), noises(policy)
    for loops in policy.depths:
        found = backend.denoise(backend.encode(observation, loops), noise, STEPS)
        assert largest_error(policy, found, expected(policy, loops)) < 1e-5
    shallow, deep = (expected(policy, loops) for loops in (1, policy.max_loops))
    assert largest_error(policy, shallow, deep) > 1e-3  # another depth would not have passed


@pytest.mark.parametrize("steps", [1, 2, 7, 10])
def test_it_takes_any_number_of_steps(steps: int):
    policy = random_policy(*POLICIES["plain"])
    backend = fused(policy)
    found = backend.denoise(backend.encode(observations(policy), 2), noises(policy), steps)
    assert largest_error(policy, found, expected(policy, 2, steps)) < 1e-5


def test_proprio_beyond_its_bounds_is_clipped():
    policy = random_policy(*POLICIES["plain"])
    policy.normalizer.register_buffer("proprio_bound", torch.full((3,), 0.5))
    backend = fused(policy)
    found = backend.denoise(backend.encode(observations(policy), 2), noises(policy), STEPS)
    assert largest_error(policy, found, expected(policy, 2)) < 1e-5


@pytest.mark.parametrize("name", ["wide", "everything"])
def test_bfloat16_is_near_and_is_not_float32(name: str):
    if not cpu_library().fused_has_bfloat16():
        pytest.skip("this CPU has no AVX-512 BF16")
    policy = random_policy(*POLICIES[name])
    backend = fused(policy, "bf16")
    assert backend.precision == "bf16"
    found = backend.denoise(backend.encode(observations(policy), 2), noises(policy), STEPS)
    assert 1e-4 < largest_error(policy, found, expected(policy, 2)) < 0.1


def test_one_context_serves_several_chunks_and_leaves_their_noise():
    policy = random_policy(*POLICIES["everything"])
    backend = fused(policy)
    noise = noises(policy)
    before = noise.copy()
    context = backend.encode(observations(policy), 2)
    other = {name: value[::-1].copy() for name, value in observations(policy).items()}
    first = backend.denoise(context, noise, STEPS)
    backend.denoise(backend.encode(other, 2), -noise, STEPS)
    np.testing.assert_array_equal(backend.denoise(context, noise, STEPS), first)
    np.testing.assert_array_equal(noise, before)


def test_tensors_inside_a_received_message_will_do():
    policy = random_policy(*POLICIES["everything"])
    backend = fused(policy)
    received = {
        # Read-only, and starting at an odd byte.
        name: np.frombuffer(b"\0" + value.tobytes(), value.dtype, offset=1).reshape(value.shape)
        for name, value in observations(policy).items()
    }
    found = backend.denoise(backend.encode(received, 2), noises(policy), STEPS)
    assert largest_error(policy, found, expected(policy, 2)) < 1e-5


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (replace(SMALL, objective=ObjectiveConfig("flow", sampler="heun")), "sampler heun of flow"),
        (
            replace(SMALL, objective=ObjectiveConfig("ddpm_v", sampler="ddpm")),
            "sampler ddpm of ddpm_v",
        ),
        (replace(SMALL, topology="dense"), "no kernel for policy.topology=dense"),
    ],
)
def test_a_policy_that_it_has_no_kernel_for_is_refused_with_another_back_end(
    config: LoopedDiTConfig, said: str
):
    with pytest.raises(BundleError, match=rf"{said}.*backend=onnxruntime"):
        fused(random_policy(TWO_CAMERAS, config))


def test_the_shipped_bundle_is_loaded_by_its_name_and_refuses_a_k_that_it_has_not():
    bundle = Bundle.open(default_bundle())
    backend = load_backend(bundle, "fused", threads=2)  # which proves the witness
    assert (backend.name, backend.precision, backend.threads) == ("fused", "fp32", 1)
    seen = {t.name: np.zeros((1, *t.shape), t.dtype) for t in bundle.spec.observations}
    with pytest.raises(BundleError, match="loops=5 is not in this bundle"):
        backend.encode(seen, 5)


def test_what_is_not_a_number_is_seen_in_the_actions():
    policy = random_policy(*POLICIES["plain"])
    with torch.no_grad():
        policy.model.stack[0].feedforward_in.weight[0, 0] = torch.nan
    backend = fused(policy)
    found = backend.denoise(backend.encode(observations(policy), 1), noises(policy), STEPS)
    assert np.isnan(found).all()
