import numpy as np
import pytest

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import make_probes
from loopdit.deploy.serving.served_bundle import ServedBundle, starting_noise
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.errors import BundleError, ConfigError
from loopdit.policy.looped_policy import LoopedPolicy


@pytest.fixture(scope="module")
def served(tiny_bundle: Bundle) -> ServedBundle:
    return ServedBundle(tiny_bundle, load_backend(tiny_bundle, "onnxruntime"))


@pytest.fixture(scope="module")
def observation(tiny_bundle: Bundle) -> dict[str, np.ndarray]:
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 1, seed=3)
    return {name: value[0] for name, value in probes.observations.items()}


def test_it_is_what_the_server_serves(served: ServedBundle, tiny_bundle: Bundle):
    policy: ServedPolicy = served
    assert (policy.model_id, policy.horizon) == (tiny_bundle.model_id, 4)
    assert (policy.loops, policy.steps, served.default_loops) == ((1, 2), 3, 2)


def test_a_request_computes_the_same_chunk_again(
    served: ServedBundle, observation: dict[str, np.ndarray]
):
    first = served.infer(observation, seed=7, loops=2, steps=3)
    again = served.infer(observation, seed=7, loops=2, steps=3)
    other = served.infer(observation, seed=8, loops=2, steps=3)
    np.testing.assert_array_equal(first.actions, again.actions)
    assert np.abs(first.actions - other.actions).max() > 0.01


def test_a_chunk_is_the_policys_for_the_noise_of_its_seed(
    served: ServedBundle, observation: dict[str, np.ndarray], tiny_policy: LoopedPolicy
):
    import torch

    inference = served.infer(observation, seed=2**40, loops=1, steps=4)
    batched = {name: torch.from_numpy(value[None]) for name, value in observation.items()}
    noise = 0.25 * torch.from_numpy(starting_noise(2**40, 1, 4, 2))  # the bundle's temperature
    expected = tiny_policy.act(batched, noise, loops=1, steps=4)[0].numpy()
    np.testing.assert_allclose(inference.actions, expected, atol=1e-4)
    assert (inference.actions.shape, inference.actions.dtype) == ((4, 2), np.float32)
    assert (inference.loops, inference.steps) == (1, 4)
    assert inference.encode_us > 0
    assert inference.denoise_us > 0


def test_what_it_cannot_compute_is_refused(
    served: ServedBundle, observation: dict[str, np.ndarray]
):
    with pytest.raises(BundleError, match="loops=9"):
        served.infer(observation, seed=0, loops=9, steps=3)
    with pytest.raises(ConfigError, match="steps=0"):
        served.infer(observation, seed=0, loops=1, steps=0)


def test_noise_is_standard_normal_and_of_its_seed_alone():
    noise = starting_noise(5, 100, 16, 7)
    np.testing.assert_array_equal(noise, starting_noise(5, 100, 16, 7))
    # n = 11,200: each bound is over six standard errors wide.
    assert abs(noise.mean()) < 0.06
    assert abs(noise.std() - 1) < 0.06
