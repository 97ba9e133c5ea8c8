"""Guided chunks on every back end that can be asked for a step, against the torch module."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.deploy.backends.general_backends import GENERAL

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends import load_backend
from loopdit.deploy.backends.guided import GuidedSampler
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import make_probes
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.robot.guide import GUIDE, guide_for, padded
from loopdit.deploy.serving.served_bundle import ServedBundle, starting_noise
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import BundleError
from loopdit.policy.guidance import FULL, IDENTITY, guided
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.flow import Flow

LOOPS, STEPS = 2, 5
GUIDABLE = [name for name in GENERAL if name != "torch-compile"]


@pytest.fixture(scope="module", autouse=True)
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def observation(tiny_bundle: Bundle) -> Observation:
    given, _ = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 1, seed=3).batch(0, 1)
    return given


@pytest.fixture(scope="module")
def guide(tiny_bundle: Bundle) -> np.ndarray:
    """(1, H, A + 1), three actions of a plan."""
    planned = np.array([[2.0, -0.1], [1.0, 0.2], [-3.0, 0.1]], np.float32)
    return padded(guide_for(planned, delay=1), tiny_bundle.horizon)[None]


def reference(
    policy: LoopedPolicy, observation: Observation, noise: np.ndarray, guide: np.ndarray, how: str
) -> np.ndarray:
    given = {name: torch.from_numpy(np.array(value)) for name, value in observation.items()}
    with torch.no_grad():
        context = policy.encode(given, LOOPS)
        wanted = policy.normalizer.chunk(torch.from_numpy(guide[..., :-1]))
        weight = torch.from_numpy(guide[..., -1:])
        asked = guided(lambda s, t: policy.model.predict(s, t, context), wanted, weight, how)
        return policy.to_actions(Flow().sample(asked, torch.from_numpy(noise), STEPS)).numpy()


@pytest.mark.parametrize("name", GUIDABLE)
def test_every_back_end_makes_the_guided_chunk_of_the_trained_policy(
    name: str,
    tiny_bundle: Bundle,
    tiny_policy: LoopedPolicy,
    observation: Observation,
    guide: np.ndarray,
):
    backend = load_backend(tiny_bundle, name)
    noise = starting_noise(0, 1, tiny_bundle.horizon, 2)
    context = backend.encode(observation, LOOPS)
    found = GuidedSampler(tiny_bundle, backend).denoise(context, noise, STEPS, guide)
    expected = reference(tiny_policy, observation, noise, guide, IDENTITY)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    nothing = np.zeros_like(guide)
    free = GuidedSampler(tiny_bundle, backend).denoise(context, noise, STEPS, nothing)
    np.testing.assert_allclose(free, backend.denoise(context, noise, STEPS), rtol=1e-4, atol=1e-4)
    assert np.abs(found - free).max() > 0.1


def test_the_torch_back_end_has_the_full_jacobian(
    tiny_bundle: Bundle, tiny_policy: LoopedPolicy, observation: Observation, guide: np.ndarray
):
    backend = load_backend(tiny_bundle, "torch")
    noise = starting_noise(0, 1, tiny_bundle.horizon, 2)
    sampler = GuidedSampler(tiny_bundle, backend, FULL)
    found = sampler.denoise(backend.encode(observation, LOOPS), noise, STEPS, guide)
    full, identity = (
        reference(tiny_policy, observation, noise, guide, how) for how in (FULL, IDENTITY)
    )
    np.testing.assert_allclose(found, full, atol=1e-4 * np.abs(full).max())
    assert np.abs(full - identity).max() > 0.01


def test_a_back_end_without_gradients_refuses_the_full_jacobian(tiny_bundle: Bundle):
    backend = load_backend(tiny_bundle, "onnxruntime")
    with pytest.raises(BundleError, match=r"no gradients.*backend=torch, or jacobian=identity"):
        GuidedSampler(tiny_bundle, backend, FULL)


def test_a_served_policy_keeps_to_a_guide_that_is_observed_and_else_answers_as_ever(
    tiny_bundle: Bundle, observation: Observation, guide: np.ndarray
):
    policy = ServedBundle(tiny_bundle, load_backend(tiny_bundle, "onnxruntime"))
    seen = {name: value[0] for name, value in observation.items()}
    free = policy.infer(seen, seed=1, loops=LOOPS, steps=STEPS).actions
    kept = policy.infer({**seen, GUIDE: guide[0, :3]}, seed=1, loops=LOOPS, steps=STEPS).actions
    assert abs(kept[0, 0] - 2.0) < abs(free[0, 0] - 2.0)
    np.testing.assert_array_equal(
        policy.infer(seen, seed=1, loops=LOOPS, steps=STEPS).actions, free
    )


def test_a_guide_travels_over_the_wire_and_the_chunk_keeps_to_it(
    tiny_bundle: Bundle, observation: Observation, guide: np.ndarray
):
    policy = ServedBundle(tiny_bundle, load_backend(tiny_bundle, "onnxruntime"))
    seen = {name: value[0] for name, value in observation.items()}
    with (
        PolicyServer([policy], "tcp://127.0.0.1:0") as server,
        PolicyClient(server.endpoint, timeout_s=30) as client,
    ):
        reply = client.infer({**seen, GUIDE: guide[0, :3]}, seed=1, loops=LOOPS, steps=STEPS)
    kept = policy.infer({**seen, GUIDE: guide[0, :3]}, seed=1, loops=LOOPS, steps=STEPS).actions
    np.testing.assert_allclose(reply.actions, kept, atol=1e-5)
