"""The C++ kernels against the trained module, for every kind of policy that they are for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.deploy.backends.fused.fused_policies import (
    POLICIES,
    STEPS,
    TWO_CAMERAS,
    expected,
    largest_error,
    noises,
    observations,
    random_policy,
)
from tests.policy.policies import SMALL

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.backends import load_backend
from loopdit.deploy.backends.fused.cpu_backend import FusedCpuBackend
from loopdit.deploy.backends.fused.cpu_library import cpu_library
from loopdit.deploy.backends.registry import KINDS
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.errors import BundleError
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

pytestmark = pytest.mark.skipif(
    KINDS["fused"].unavailable() is not None, reason=f"fused {KINDS['fused'].unavailable()}"
)


def fused(policy: LoopedPolicy, precision: str = "fp32") -> FusedCpuBackend:
    def require_loops(loops: int) -> None:
        assert loops in policy.depths

    return FusedCpuBackend(policy, precision, require_loops)


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
