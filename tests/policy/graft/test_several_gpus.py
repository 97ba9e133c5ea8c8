import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import (
    _validate_launch_command,  # pyright: ignore[reportPrivateUsage] - what `accelerate launch` does first
    launch_command_parser,
)
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from tests.policy.trainings import run

from loopdit.errors import ConfigError
from loopdit.policy.graft.train import require_replicas

_FILE = Path(__file__).parents[3] / "configs" / "accelerate" / "ddp.yaml"


def test_accelerate_reads_its_configuration_for_several_gpus():
    config = load_config_from_file(str(_FILE))
    assert config.distributed_type == DistributedType.MULTI_GPU
    parser = launch_command_parser()
    module = ["-m", "loopdit.policy.graft.train"]
    launched = _validate_launch_command(parser.parse_args(["--config_file", str(_FILE), *module]))
    assert launched[0].multi_gpu
    assert launched[0].num_processes == 4
    assert launched[0].mixed_precision == "bf16"


@pytest.mark.system
def test_two_processes_train_to_the_weights_of_one(squares: str, tmp_path: Path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    given = [
        *(f"data={squares}", f"latents={tmp_path / 'latents'}", "video.height=32"),
        *("video.width=48", "steps=2", "batch_size=4", "threads=1", "workers=0", "device=cpu"),
        *("graft.loops=2", "graft.freeze=half", "depth.mode=all", "decoder.width=32"),
    ]
    for name, launcher in (("one", (sys.executable,)), ("two", torchrun)):
        module = ("-m", "loopdit.policy.graft.train", f"out={tmp_path / name}")
        done = run([*launcher, *module, *given])
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


def test_sharded_weights_are_refused_by_name():
    require_replicas(DistributedType.MULTI_GPU)
    require_replicas(DistributedType.NO)
    with pytest.raises(ConfigError, match="FSDP shards weights"):
        require_replicas(DistributedType.FSDP)
