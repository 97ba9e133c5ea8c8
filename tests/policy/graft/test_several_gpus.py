import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import (
    _validate_launch_command,  # pyright: ignore[reportPrivateUsage] - what `accelerate launch` does first
    launch_command_parser,
)
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from tests.policy.graft.trainings import small_training
from tests.policy.interrupting import Interrupting
from tests.policy.trainings import run

from loopdit.errors import ConfigError
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.train import require_ours, train_graft
from loopdit.policy.objectives.depth import DepthConfig
from loopdit.policy.training.closed_loop import BEST
from loopdit.policy.training.metrics import read_rows

_FILE = Path(__file__).parents[3] / "configs" / "accelerate" / "ddp.yaml"
_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
_SMALL = (
    *("video.height=32", "video.width=48", "steps=4", "batch_size=4", "threads=1", "workers=0"),
    *("graft.loops=2", "graft.freeze=half", "depth.mode=all", "decoder.width=32"),
    *("decoder.blocks=1", "action_horizon=4", "validation=0.2", "validate_every=2", "device=cpu"),
    *("learning_rate=1e-3", "warmup_steps=0", "patience=5"),
)
_OPTIONS: dict[str, Any] = {
    "graft": GraftConfig(loops=2, freeze="half"),
    "depth": DepthConfig(mode="all"),
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "patience": 5,
}


def test_accelerate_reads_its_configuration_for_several_gpus():
    config = load_config_from_file(str(_FILE))
    assert config.distributed_type == DistributedType.MULTI_GPU
    parser = launch_command_parser()
    module = ["-m", "loopdit.policy.graft.train"]
    launched = _validate_launch_command(parser.parse_args(["--config_file", str(_FILE), *module]))
    assert launched[0].multi_gpu
    assert launched[0].num_processes == 4
    assert launched[0].mixed_precision == "bf16"


def _two_processes(squares: str, out: Path, *more: str) -> None:
    latents = Path(squares).parent / "latents"
    module = ("-m", "loopdit.policy.graft.train", f"data={squares}", f"latents={latents}")
    done = run([*_TORCHRUN, *module, f"out={out}", *_SMALL, *more])
    assert done.returncode == 0, done.stderr


def _assert_alike(one: Path, two: Path) -> None:
    """The weights that are served, those that go on, the optimizer's moments, the best ones, and
    what is told."""
    best = f"{BEST}/model.safetensors"
    for file in ("model.safetensors", "training_state.safetensors", best):
        wanted, found = load_file(one / file), load_file(two / file)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            of_optimizer = name.startswith("optimizer/")
            near = 1e-3 * float(value.abs().max()) if of_optimizer else 1e-5
            assert float((found[name] - value).abs().max()) <= near, name
    rows, others = read_rows(one), read_rows(two)
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-5)
        for name in ("action_error", "constant_error"):
            found = other["validation"][name]
            assert found == pytest.approx(row["validation"][name], rel=1e-4)


@pytest.mark.system
def test_two_processes_train_to_the_weights_of_one_though_no_loss_reads_some_layers(
    squares: str, tmp_path: Path
):
    train_graft(small_training(squares, tmp_path / "one", **_OPTIONS, video_weight=0.0))
    _two_processes(squares, tmp_path / "two", "video_weight=0")
    _assert_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.system
def test_sharded_processes_go_on_where_one_was_stopped_to_the_same_weights(
    squares: str, tmp_path: Path
):
    one, two = tmp_path / "one", tmp_path / "two"
    with pytest.raises(KeyboardInterrupt):
        train_graft(small_training(squares, one, **_OPTIONS), clock=Interrupting(5))
    shutil.copytree(one, two)
    train_graft(small_training(squares, one, **_OPTIONS, resume=True))
    _two_processes(squares, two, "shard=true", "resume=true", "checkpoint=nested")
    _assert_alike(one, two)


def test_a_launcher_that_would_shard_by_itself_is_told_the_option():
    require_ours(DistributedType.MULTI_GPU)
    require_ours(DistributedType.NO)
    with pytest.raises(ConfigError, match=r"asks for FSDP, .* Use shard=true"):
        require_ours(DistributedType.FSDP)


def test_one_process_has_nothing_to_shard_over(squares: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="shard=true spreads weights over processes"):
        train_graft(small_training(squares, tmp_path, shard=True))
