"""Bundles of policies that are given more than pictures and proprio: graphs, and what serves them.

An export proves itself against torch and refuses to write anything else, so that it comes to an end
is parity already.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.deploy.backends.general_backends import GENERAL
from tests.policy.policies import SMALL, small_spec

from loopdit.datasets.spec import COMMITTED, Observation, PolicySpec, TensorSpec
from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.export.command import ExportConfig, export_bundle
from loopdit.deploy.serving.description import what_may_vary
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.errors import ConfigError, ObservationError
from loopdit.policy.checkpoint import save_checkpoint
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

LIFT, STACK = "lift the cube", "stack the cubes"
EVERYTHING = replace(
    SMALL, instruction="words", instructions=[LIFT, STACK], in_flight=2, optional_cameras=True
)
SPEC = small_spec(cameras=2)


def exported(
    folder: Path, spec: PolicySpec, config: LoopedDiTConfig, steps: int = 3, any_k: bool = True
) -> Bundle:
    torch.manual_seed(0)
    policy = LoopedPolicy(spec, config).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_checkpoint(folder / "checkpoint", policy, {})
    export_bundle(
        ExportConfig(
            checkpoint=str(folder / "checkpoint"),
            out=str(folder / "bundle"),
            steps=steps,
            loops=[2],
            loop_graphs=any_k,
            observations=6,
            repetitions=0,
        ),
        Console(quiet=True),
    )
    return Bundle.open(folder / "bundle")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("everything"), SPEC, EVERYTHING)


def observation(spec: PolicySpec, committed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {
        camera.name: rng.integers(0, 256, camera.shape, dtype=np.uint8) for camera in spec.cameras
    }
    found["proprio"] = rng.normal(size=spec.proprio.shape).astype(np.float32)
    if spec.committed is not None:
        found[COMMITTED] = np.zeros(spec.committed.shape, np.float32)
        found[COMMITTED][:committed] = 1.0
        found[COMMITTED][:committed, :-1] = 0.5
    return found


def chunk(bundle: Bundle, backend: str, seen: Observation, said: str = LIFT) -> np.ndarray:
    served = ServedBundle(bundle, load_backend(bundle, backend))
    return served.infer(seen, seed=0, loops=2, steps=3, instruction=said).actions


@pytest.mark.system
def test_who_serves_it_is_told_what_it_knows_and_what_it_can_do_without(
    bundle: Bundle,
):
    assert what_may_vary(bundle) == {
        "may lack": "images.camera0, images.camera1; but not all cameras at once",
        "told": f"its task by an instruction, in these words or like them: {LIFT!r}; {STACK!r}",
    }
    shipped = what_may_vary(Bundle.open(default_bundle()))
    assert list(shipped) == ["told"]  # seven tasks, and both cameras
    assert "'open the drawer'" in shipped["told"]


@pytest.mark.system
@pytest.mark.parametrize("backend", GENERAL)
def test_what_is_said_missing_or_in_flight_changes_the_chunk(bundle: Bundle, backend: str):
    seen = observation(bundle.spec)
    plain = chunk(bundle, backend, seen)
    assert not np.allclose(plain, chunk(bundle, backend, seen, said=STACK))
    fewer = {name: value for name, value in seen.items() if name != "images.camera1"}
    bundle.spec.check_observation(fewer)
    assert not np.allclose(plain, chunk(bundle, backend, fewer))
    told = chunk(bundle, backend, observation(bundle.spec, committed=2))
    np.testing.assert_allclose(told[:2], 0.5, atol=1e-6)
    assert not np.allclose(plain[2:], told[2:])


@pytest.mark.system
def test_every_back_end_makes_the_same_of_it(bundle: Bundle):
    seen = observation(bundle.spec, committed=1)
    del seen["images.camera0"]
    found = [chunk(bundle, backend, seen, STACK) for backend in GENERAL]
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, atol=1e-5)


@pytest.mark.system
def test_an_instruction_without_a_known_word_is_refused_with_the_closest(bundle: Bundle):
    with pytest.raises(ObservationError, match="lift the cube"):
        chunk(bundle, "torch", observation(bundle.spec), said="raise it")


# Each graph takes seconds; how the sample is stepped is the same in those of any K.
@pytest.mark.system
@pytest.mark.parametrize(
    ("config", "any_k"),
    [
        (replace(SMALL, instruction="task", instructions=[LIFT, STACK]), True),
        (replace(SMALL, objective=ObjectiveConfig("ddpm_eps")), False),
        (replace(SMALL, objective=ObjectiveConfig("ddpm_v"), in_flight=2), True),
        (replace(SMALL, objective=ObjectiveConfig("regression")), False),
        (replace(SMALL, objective=ObjectiveConfig("flow", sampler="heun")), False),
        (replace(SMALL, injection=True, encoder="pooled"), True),
    ],
    ids=["task", "eps", "v in flight", "regression", "heun", "injection"],
)
def test_every_way_to_make_a_policy_has_graphs_that_equal_torch(
    tmp_path: Path, config: LoopedDiTConfig, any_k: bool
):
    opened = exported(tmp_path, SPEC, config, any_k=any_k)
    assert opened.manifest.temperature == (1.0 if "ddpm" in config.objective.kind else 0.0)
    assert opened.manifest.parity["proofs"][0]["counted_rows"] or not any_k
    assert opened.manifest.max_steps == (100 if "ddpm" in config.objective.kind else None)


def with_gripper() -> PolicySpec:
    action = TensorSpec(
        "action",
        (2,),
        "float32",
        labels=("x", "gripper"),
        units=("m", "1"),
        low=(-1, 0),
        high=(1, 1),
    )
    return replace(SPEC, action=action)


@pytest.mark.system
def test_a_gripper_by_cross_entropy_is_open_or_closed_in_the_graphs_too(tmp_path: Path):
    config = replace(SMALL, objective=ObjectiveConfig(gripper="bce"))
    opened = exported(tmp_path, with_gripper(), config, any_k=False)
    for backend in GENERAL:
        gripper = chunk(opened, backend, observation(opened.spec))[:, 1]
        assert set(np.round(gripper, 6).tolist()) <= {0.0, 1.0}


@pytest.mark.system
@pytest.mark.parametrize(
    ("config", "steps", "said"),
    [
        (replace(SMALL, topology="dense"), 3, "topology=dense"),
        (replace(SMALL, objective=ObjectiveConfig("ddpm_x0", sampler="ddpm")), 3, "noise at each"),
        (replace(SMALL, objective=ObjectiveConfig("ddpm_x0")), 101, "steps=101"),
    ],
)
def test_what_no_graph_can_do_is_said_before_any_is_written(
    tmp_path: Path, config: LoopedDiTConfig, steps: int, said: str
):
    with pytest.raises(ConfigError, match=said):
        exported(tmp_path, SPEC, config, steps)
    assert not (tmp_path / "bundle").exists()
