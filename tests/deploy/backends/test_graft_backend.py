from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.policy.graft.graft_policies import CAMERA, SPEC, config_of

from loopdit.datasets.spec import PROPRIO
from loopdit.datasets.video.clips import ClipConfig
from loopdit.deploy.backends import load_backend
from loopdit.deploy.bench.command import BenchConfig, run_bench
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import bundle_probes
from loopdit.deploy.export.command import export_bundle
from loopdit.deploy.export.config import ExportConfig
from loopdit.deploy.export.parity import backend_chunks, reference_chunks
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.errors import BundleError, ConfigError, ObservationError
from loopdit.eval.rollouts.policy_sources import open_policy
from loopdit.policy.checkpoint import write_checkpoint
from loopdit.policy.graft.checkpoint import graft_content, load_graft_checkpoint, new_policy

LOOPS = 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory.mktemp("graft") / "checkpoint")


def _checkpoint(folder: Path, **options: object) -> Path:
    torch.manual_seed(0)
    policy = new_policy(SPEC, config_of(loops=LOOPS, **options))
    with torch.no_grad():
        for value in policy.graft.loop_parameters():
            value.add_(0.3)
    provenance = {"step": 1, "config": {}}
    write_checkpoint(folder, graft_content(policy, policy.trained(), provenance))
    return folder


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    config = ExportConfig(
        checkpoint=str(checkpoint), out=str(checkpoint.parent / "bundle"), steps=3
    )
    return export_bundle(config, Console(quiet=True))


def _observation() -> dict[str, np.ndarray]:
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3)).astype(np.uint8)
    return {CAMERA: frames, PROPRIO: np.zeros((9, 3), np.float32)}


def test_a_bundle_of_a_graft_has_its_weights_and_no_graphs(bundle: Bundle):
    assert sorted(bundle.files) == ["checkpoint.json", "model.safetensors"]
    assert bundle.loops == (1, 2)
    assert bundle.manifest.witness is not None


def test_torch_runs_a_graft_as_the_module_that_was_trained_does(bundle: Bundle, checkpoint: Path):
    backend = load_backend(bundle, "auto")
    assert backend.name == "torch"
    probes = bundle_probes(bundle, 3, seed=0)
    policy = load_graft_checkpoint(checkpoint).policy
    for loops in bundle.loops:
        found = backend_chunks(backend, probes, loops, 3)
        wanted = reference_chunks(policy, probes, loops, 3)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert not np.array_equal(
        backend_chunks(backend, probes, 1, 3), backend_chunks(backend, probes, 2, 3)
    )


def test_half_the_bits_are_near_what_was_trained(bundle: Bundle):
    exact, half = (load_backend(bundle, "torch", precision=p) for p in ("fp32", "bf16"))
    probes = bundle_probes(bundle, 2, seed=0)
    found, wanted = (backend_chunks(each, probes, 2, 3) for each in (half, exact))
    assert 0 < np.abs(found - wanted)[..., :3].mean() < 0.1


def test_a_graft_is_served_at_any_of_its_depths_and_told_its_task(bundle: Bundle):
    served = ServedBundle(bundle, load_backend(bundle, "torch"))
    made = [
        served.infer(_observation(), seed=0, loops=loops, steps=3, instruction=said).actions
        for loops in (1, 2)
        for said in ("open it", "close it")
    ]
    assert made[0].shape == (4, 4)
    assert len({actions.tobytes() for actions in made}) == 4
    with pytest.raises(ObservationError, match="none of the policy's 2 tasks"):
        served.infer(_observation(), seed=0, loops=1, steps=3, instruction="dance")
    with pytest.raises(BundleError, match="loops=3 is not in this bundle"):
        served.infer(_observation(), seed=0, loops=3, steps=3, instruction="open it")


def test_a_policy_of_one_frame_is_exported_and_served_with_one(tmp_path: Path):
    video = ClipConfig(frames=1, height=32, width=48)
    folder = _checkpoint(tmp_path / "checkpoint", video=video)
    config = ExportConfig(checkpoint=str(folder), out=str(tmp_path / "bundle"), steps=3)
    bundle = export_bundle(config, Console(quiet=True))
    served = ServedBundle(bundle, load_backend(bundle, "torch"))
    present = {name: values[-1] for name, values in _observation().items()}
    found = served.infer(present, seed=0, loops=2, steps=3, instruction="open it").actions
    policy = load_graft_checkpoint(folder).policy
    probes = bundle_probes(bundle, 2, seed=0)
    np.testing.assert_allclose(
        backend_chunks(load_backend(bundle, "torch"), probes, 2, 3),
        reference_chunks(policy, probes, 2, 3),
        atol=1e-5,
    )
    assert found.shape == (4, 4)
    with open_policy(str(bundle.path), "", "") as source:
        driver = source.make(None, 2, 3)  # pyright: ignore[reportArgumentType] - a model looks at no environment
        assert driver.history == 1


@pytest.mark.slow  # its back end is in a process of its own
@pytest.mark.system
def test_policy_bench_measures_each_depth_of_a_graft(bundle: Bundle, tmp_path: Path):
    config = BenchConfig(bundle=str(bundle.path), repetitions=2, clock="cpu", out=str(tmp_path))
    rows = run_bench(config, Console(quiet=True))["rows"]
    measured = [row for row in rows if "reason" not in row]
    assert [(row["backend"], row["loops"]) for row in measured] == [("torch", 1), ("torch", 2)]
    assert all(row["max_abs_error"] < 1e-5 for row in measured)
    assert {row["backend"] for row in rows} == {"torch", "cuda-graph"}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "fused", "torch-compile"])
def test_what_runs_graphs_or_kernels_says_that_it_does_not_run_a_graft(bundle: Bundle, name: str):
    with pytest.raises(BundleError, match=r"is a grafted video model|cannot run here"):
        load_backend(bundle, name)


def test_precisions_of_graphs_are_refused_for_a_graft(checkpoint: Path, tmp_path: Path):
    config = ExportConfig(
        checkpoint=str(checkpoint), out=str(tmp_path / "out"), precision=["fp32", "bf16"]
    )
    with pytest.raises(ConfigError, match="exported without graphs"):
        export_bundle(config, Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_a_graft_is_evaluated_from_its_checkpoint_and_from_its_bundle_alike(
    bundle: Bundle, checkpoint: Path
):
    answers: list[np.ndarray] = []
    for name in (str(checkpoint), str(bundle.path)):
        with open_policy(name, "", "") as source:
            assert source.loops == (1, 2)
            assert source.model_id == bundle.model_id
            policy = source.make(None, 2, 3)  # pyright: ignore[reportArgumentType] - a model looks at no environment
            policy.reset(900_000)
            assert policy.history == 9
            answers.append(policy.chunk(_observation(), "open it").actions)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)
