from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.probes import make_probes
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.planner import Planner, Rung
from loopdit.deploy.serving.served_bundle import ServedBundle, starting_noise
from loopdit.deploy.serving.served_policy import Asked, Inference, PlannedPolicy
from loopdit.errors import BundleError, ConfigError, ObservationError
from loopdit.machine import machine_and_versions
from loopdit.policy.adaptive_depth import act_adaptively
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.encoders.vocabulary import INSTRUCTION, TASK
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.stopping_rule import StoppingRule


@pytest.fixture(scope="module")
def served(tiny_bundle: Bundle) -> ServedBundle:
    return ServedBundle(tiny_bundle, load_backend(tiny_bundle, "onnxruntime"))


@pytest.fixture(scope="module")
def observation(tiny_bundle: Bundle) -> dict[str, np.ndarray]:
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 1, seed=3)
    return {name: value[0] for name, value in probes.observations.items()}


def test_it_is_what_the_server_serves(served: ServedBundle, tiny_bundle: Bundle):
    policy: PlannedPolicy = served
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


def asked_for(observation: dict[str, np.ndarray], seeds: range) -> list[Asked]:
    """The same scene, brighter each time."""
    front = observation["images.front"]
    return [Asked({**observation, "images.front": front // 8 * (s + 1)}, s) for s in seeds]


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "fused"])
def test_a_batch_computes_what_each_of_it_computes_alone(
    tiny_bundle: Bundle, observation: dict[str, np.ndarray], backend: str
):
    served = ServedBundle(tiny_bundle, load_backend(tiny_bundle, backend))
    asked = asked_for(observation, range(4))
    together = served.infer_batch(asked, loops=2, steps=3, may_stop=False)
    for one, made in zip(asked, together, strict=True):
        alone = served.infer(one.observation, seed=one.seed, loops=2, steps=3)
        assert isinstance(made, Inference)
        np.testing.assert_allclose(made.actions, alone.actions, atol=1e-5)
        assert (made.loops, made.steps) == (2, 3)
    chunks = [made.actions for made in together if isinstance(made, Inference)]
    assert all(np.abs(a - b).max() > 0.01 for a, b in combinations(chunks, 2))


def test_one_that_the_policy_cannot_understand_fails_alone_in_its_batch(
    tiny_bundle: Bundle, observation: dict[str, np.ndarray]
):
    told = replace(tiny_bundle.manifest, instruction=TASK, instructions=("lift", "stack"))
    served = ServedBundle(
        replace(tiny_bundle, manifest=told), load_backend(tiny_bundle, "onnxruntime")
    )
    outcomes = served.infer_batch(
        [Asked(observation, 0, "fly"), Asked(observation, 0, "swim")],
        loops=1,
        steps=3,
        may_stop=False,
    )
    assert all(isinstance(outcome, ObservationError) for outcome in outcomes)


def test_loops_stop_where_the_calibrated_rule_says_that_more_change_nothing():
    import torch

    bundle = Bundle.open(default_bundle())
    backend = load_backend(bundle, "torch")
    policy, told = load_policy(bundle.path), bundle.manifest.told("press the button")
    assert told is not None
    assert not ServedBundle(bundle, backend).stops_early  # nobody has calibrated it
    probes = make_probes(bundle.spec, bundle.horizon, 3, seed=3)
    rows = [{n: v[i] for n, v in probes.observations.items()} for i in range(3)]
    asked = [Asked(row, seed, "press the button") for seed, row in enumerate(rows)]
    taken: list[list[int]] = []
    for threshold in (0.0, 0.02, float("inf")):
        rule = {"threshold": threshold, "measure": "chunk"}
        manifest = replace(bundle.manifest, adaptive=rule)
        served = ServedBundle(replace(bundle, manifest=manifest), backend)
        assert served.stops_early
        outcomes = served.infer_batch(asked, loops=4, steps=2, may_stop=True)
        made = [outcome for outcome in outcomes if isinstance(outcome, Inference)]
        taken.append([inference.loops for inference in made])
        tensors = {n: torch.from_numpy(np.stack([r[n] for r in rows])) for n in rows[0]}
        tensors[INSTRUCTION] = torch.from_numpy(np.stack([told] * 3))
        noise = torch.zeros(3, bundle.horizon, 7)  # the bundle's temperature is 0
        expected = act_adaptively(policy, tensors, noise, StoppingRule(threshold), 4, 2)
        assert taken[-1] == expected.loops.tolist()
        np.testing.assert_allclose(
            np.stack([inference.actions for inference in made]), expected.actions, atol=1e-5
        )
        pinned = served.infer_batch(asked[:1], loops=3, steps=2, may_stop=False)[0]
        assert isinstance(pinned, Inference)
        assert pinned.loops == 3
    assert taken[0] == [4, 4, 4]
    assert taken[2] == [2, 2, 2]
    assert taken[1] not in (taken[0], taken[2])


def test_a_back_end_that_cannot_look_at_its_loops_takes_those_it_was_asked_for(
    served: ServedBundle, observation: dict[str, np.ndarray]
):
    assert not served.stops_early
    (made,) = served.infer_batch([Asked(observation, 0)], loops=2, steps=3, may_stop=True)
    assert isinstance(made, Inference)
    assert made.loops == 2


def test_after_the_warm_up_it_knows_what_each_rung_takes(tiny_bundle: Bundle):
    unrecorded = replace(tiny_bundle.manifest, latency=())
    served = ServedBundle(
        replace(tiny_bundle, manifest=unrecorded), load_backend(tiny_bundle, "onnxruntime")
    )
    rungs = offer_of(served).planner.rungs
    assert Planner(rungs, served.latency).typical_s(rungs[0]) == 0.0
    served.measure(rungs, most_batch=4)
    plan = Planner(rungs, served.latency)
    for loops in served.loops:
        assert 0 < plan.typical_s(Rung(loops, 1)) < plan.typical_s(Rung(loops, 30)) < 10
    assert plan.relied_s(rungs[0]) >= plan.typical_s(rungs[0])
    assert max(plan.batches, default=1) <= 4


def test_the_bundles_table_of_this_machine_goes_before_the_warm_up(tiny_bundle: Bundle):
    (table,) = tiny_bundle.manifest.latency
    here = {**table, "machine": machine_and_versions()["machine"]}
    rows = [{**row, "min_ms": 1000.0 * row["loops"], "p50_ms": 1000.0} for row in here["rows"]]
    slow = replace(tiny_bundle.manifest, latency=({**here, "rows": rows},))
    served = ServedBundle(
        replace(tiny_bundle, manifest=slow), load_backend(tiny_bundle, "onnxruntime")
    )
    rungs = offer_of(served).planner.rungs
    served.measure(rungs, most_batch=1)
    assert served.latency.undisturbed[2, 1].seconds(served.steps) == pytest.approx(2.0)
