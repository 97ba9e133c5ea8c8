"""The same training on one process, on several, in pieces: the same losses to rounding."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.policy.policies import small_store
from tests.policy.trainings import begun, command, config, curve, rows, run, weights

from loopdit.errors import ConfigError
from loopdit.policy.checkpoint import load_training_state
from loopdit.policy.training.augmentation import AugmentConfig
from loopdit.policy.training.train import train

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")


def require_equal_to_rounding(one: Path, other: Path) -> None:
    for left, right in zip(curve(one), curve(other), strict=True):
        assert left["step"] == right["step"]
        for name in ("loss", "gradient_norm", "validation"):
            assert numbers(left.get(name, 0)) == pytest.approx(
                numbers(right.get(name, 0)), rel=1e-4, abs=1e-5
            )
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(other)[name], rtol=1e-3, atol=2e-5)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    return [float(value)]


@pytest.mark.parametrize("pieces", [2, 3, 8])
def test_a_batch_in_pieces_gives_the_losses_of_the_whole_batch(tmp_path: Path, pieces: int):
    """Also where the pieces differ in size, and in how many of their actions count."""
    small_store(tmp_path / "data", episodes=24)
    options = {"steps": 8, "validate_every": 4, "augment": AugmentConfig(shift=0.1, brightness=0.2)}
    train(config(tmp_path, out=str(tmp_path / "whole"), **options))
    train(config(tmp_path, accumulate=pieces, **options))
    require_equal_to_rounding(tmp_path / "out", tmp_path / "whole")


@pytest.mark.system
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_as_one_does(tmp_path: Path, accumulate: int):
    small_store(tmp_path / "data", episodes=24)
    options = {"steps": 8, "validate_every": 4}
    train(config(tmp_path, out=str(tmp_path / "whole"), **options))
    arguments = [f"{name}={value}" for name, value in options.items()]
    done = run(
        command(tmp_path, "device=cpu", f"accumulate={accumulate}", *arguments, launcher=TORCHRUN)
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "2 processes" in done.stdout
    assert done.stdout.count("next: policy-export") == 1
    require_equal_to_rounding(tmp_path / "out", tmp_path / "whole")


@pytest.mark.system
def test_two_processes_resume_what_one_began(tmp_path: Path):
    small_store(tmp_path / "data", episodes=24)
    train(config(tmp_path, out=str(tmp_path / "whole"), steps=8, validation=0.0))
    train(config(tmp_path, steps=8, validation=0.0, save_every_s=0.0))
    again = run(command(tmp_path, "steps=8", "validation=0", "resume=true", launcher=TORCHRUN))
    assert "nothing to do" in again.stdout, again.stderr
    done = run(command(tmp_path, "steps=12", "validation=0", "resume=true", launcher=TORCHRUN))
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in rows(tmp_path / "out")] == [8, 12]


@pytest.mark.system
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_processes_ends_both_after_the_same_step(tmp_path: Path, rank: int):
    small_store(tmp_path / "data")
    slowly = tmp_path / "slowly.py"  # as on a busy disk: whoever saves nothing is done before
    slowly.write_text(
        "import time\n"
        "from loopdit.policy.training import saving, train\n"
        "write = saving.write_checkpoint\n"
        "def write_slowly(*arguments):\n"
        "    time.sleep(3)\n"
        "    write(*arguments)\n"
        "saving.write_checkpoint = write_slowly\n"
        "train.main()\n"
    )
    arguments = command(tmp_path, "steps=100000", launcher=TORCHRUN)
    module = arguments.index("loopdit.policy.training.train")
    arguments[module - 1 : module + 1] = [str(slowly)]
    with begun(arguments) as process:
        os.kill(process_of_rank(process.pid, rank), signal.SIGTERM)
        said = process.communicate()[0]
    step = load_training_state(tmp_path / "out")[0].numbers["step"]
    assert f"saved step {step}; go on with resume=true" in said


def process_of_rank(launcher: int, rank: int) -> int:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    environments = {child: Path(f"/proc/{child}/environ").read_bytes() for child in children}
    return next(int(child) for child, text in environments.items() if wanted in text.split(b"\0"))


@pytest.mark.system
def test_a_batch_that_processes_cannot_share_equally_is_refused(tmp_path: Path):
    small_store(tmp_path / "data")
    done = run(command(tmp_path, "batch_size=7", launcher=TORCHRUN))
    assert done.returncode != 0
    assert "batch_size=7 cannot be shared equally by 2 processes" in done.stderr
    assert not (tmp_path / "out" / "checkpoint.json").exists()


def test_bf16_learns_what_fp32_learns_and_keeps_fp32_weights(tmp_path: Path):
    small_store(tmp_path / "data", episodes=8)
    train(config(tmp_path, out=str(tmp_path / "fp32"), steps=40))
    train(config(tmp_path, steps=40, precision="bf16"))
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.float32}
    exact, rounded = (numbers(rows(tmp_path / name)[-1]["loss"]) for name in ("fp32", "out"))
    assert rounded == pytest.approx(exact, rel=0.05)
    assert rounded != exact


@pytest.mark.slow  # a minute of C++ compilation
def test_a_compiled_training_has_the_losses_of_an_eager_one(tmp_path: Path):
    small_store(tmp_path / "data", episodes=8)
    train(config(tmp_path, out=str(tmp_path / "eager"), steps=5))
    done = run(command(tmp_path, "steps=5", "compile=true"))
    assert done.returncode == 0, done.stderr
    require_equal_to_rounding(tmp_path / "out", tmp_path / "eager")


def test_a_missing_compiler_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small_store(tmp_path / "data")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"there is no no-such-compiler\. Install g\+\+"):
        train(config(tmp_path, compile=True))


def test_a_device_that_is_not_there_is_named(tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    small_store(tmp_path / "data")
    with pytest.raises(ConfigError, match="device=cuda, but PyTorch finds no CUDA device"):
        train(config(tmp_path, device="cuda"))


@pytest.mark.system
def test_what_ends_one_of_several_processes_frees_nothing_before(tmp_path: Path):
    """Gloo's threads may wait for the GIL then, and whoever frees the model for them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import gc, sys, weakref, torch\n"
        "from loopdit.policy.training.processes import ended_at_once, joined_model\n"
        "from loopdit.policy.training.processes import joined_processes\n"
        "def trained():\n"
        "    with joined_processes('cpu', 'fp32', False, 1) as accelerator:\n"
        "        model = joined_model(accelerator, torch.nn.Linear(2, 2))\n"
        "        model(torch.zeros(1, 2)).sum().backward()\n"
        "        return weakref.ref(model), weakref.ref(torch.distributed.group.WORLD)\n"
        "with ended_at_once():\n"
        "    kept = trained()\n"
        "    gc.collect()\n"
        "    print('kept', [one() is not None for one in kept])\n"
        "    sys.exit(3)\n"
    )
    done = run([*TORCHRUN, str(script)])
    # The one that ends first has torchrun end the other.
    assert set(done.stdout.splitlines()) == {"kept [True, True]"}, done.stderr
    assert "exitcode  : 3" in done.stderr
