"""A full GPU as the one error that back ends raise, for those that compute by torch's memory."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from loopdit.errors import OutOfMemory


@contextmanager
def gpu_memory() -> Generator[None]:
    """Raise OutOfMemory, with the remedy, where the GPU has no memory left."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the GPU has too little free memory for this policy at this batch size: {error}. Use "
            f"a smaller batch, end other programs on it (nvidia-smi lists them), or use a CPU back "
            f"end."
        ) from error
