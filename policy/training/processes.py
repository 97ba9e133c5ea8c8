"""Where a training runs: one CPU, one GPU, or one process for each GPU (or CPU) by `torchrun`.

`accelerate` finds the devices, joins the processes and wraps the model. What it keeps in module
globals is taken back at the end, so that several trainings may follow each other in one process.
"""

import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs
from torch import distributed, nn

from loopdit.errors import ConfigError
from loopdit.machine import usable_cores
from loopdit.policy.training.stopping import Stopped


@contextmanager
def joined_processes(
    device: str, precision: str, compiled: bool, threads: int, partial: bool = False
) -> Generator[Accelerator]:
    """This process's part in the training. `threads` 0: its share of the cores. `partial`: not
    every weight has a gradient in every step.

    Raises ConfigError where the device or, for `compiled`, a compiler is not there.
    """
    cpu = _is_cpu(device)
    if compiled:
        _require_compiler()
    with warnings.catch_warnings():
        # It tells of a number of threads that is set right below.
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="bf16" if precision == "bf16" else "no",
            dynamo_backend="inductor" if compiled else "no",
            # Its buffers are the normaliser's, which never change.
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    broadcast_buffers=False, find_unused_parameters=partial
                )
            ],
        )
    torch.set_num_threads(threads or max(1, usable_cores() // local_part()[1]))
    try:
        with warnings.catch_warnings():
            # DDP's: of its argument's next name, and of a speed that does not differ here.
            for said in (
                *("`broadcast_buffers` is deprecated", "Grad strides do not match"),
                "find_unused_parameters=True was specified",
            ):
                warnings.filterwarnings("ignore", message=said)
            try:
                yield accelerator
            except Stopped:
                # The first that ends so has its launcher end the others: not before the one that
                # saves has saved, and closed what it writes to.
                accelerator.wait_for_everyone()
                raise
    finally:
        if accelerator.num_processes > 1:
            _kept.append(distributed.group.WORLD)
        accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)  # pyright: ignore[reportPrivateUsage] - accelerate has no public way
        GradientState._reset_state()  # pyright: ignore[reportPrivateUsage] - as above


# What may not be freed before the process has ended: see `ended_at_once`.
_kept: list[object] = []


@contextmanager
def ended_at_once() -> Generator[None]:
    """Ends this process after the block, if it is one of several, with the status that the block
    left with: what a launcher starts is to do nothing after it.

    Gloo's threads do not bear a Python that is coming down, nor one that is busy. One that is still
    joinable then aborts the process (1 of 26 runs on two CPUs): torchrun ends the others, the one
    that saves perhaps among them, and calls a training failed that was not. And where the last
    gradients' work is freed by such a thread, which takes the GIL, while the model that owns it is
    freed by the main thread, which has it and waits for that thread, both wait for ever.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    status = 0
    try:
        yield
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def joined_model(accelerator: Accelerator, model: nn.Module) -> nn.Module:
    """The model as all processes train it, with the mean of their gradients."""
    wrapped: nn.Module = accelerator.prepare_model(model)
    if accelerator.num_processes > 1:
        _kept.append(wrapped)
    return wrapped


def local_part() -> tuple[int, int]:
    """(rank, world) of this process among those on its machine, as torchrun says."""
    return int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _require_compiler() -> None:
    """Inductor's on a CPU, and Triton's for what starts its kernels on a GPU."""
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"compile=true needs a C++ compiler, and there is no {compiler}. Install g++, name "
            f"another with CXX=, or leave out compile=true."
        )


def _is_cpu(device: str) -> bool:
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ConfigError("device=cuda, but PyTorch finds no CUDA device. Use device=cpu.")
    return device == "cpu" or not there
