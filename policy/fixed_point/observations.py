"""Raw batched observations to run a policy's loops on: recorded ones, or made up.

Shapes: B samples. What is made up has frames of noise and a proprio as spread as the training
data's: enough to see that a command works, not what the loops do on a robot.
"""

import numpy as np
import torch
from torch import Tensor

from loopdit.datasets.spec import PROPRIO
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.windows import WindowSampler
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.training.in_flight import extra_horizon
from loopdit.policy.training.window_tensors import WindowReader


def recorded(policy: LoopedPolicy, data: str, samples: int, seed: int) -> dict[str, Tensor]:
    """`samples` observations of the store `data` in an order of `seed`'s.

    Raises StoreError or SpecMismatch.
    """
    store = EpisodeStore.open(data)
    policy.spec.recorded.require_equal(
        store.spec,
        "the policy",
        f"the store {data}",
        "Name the data it was trained on, or leave data= out for synthetic observations.",
    )
    config = policy.config
    horizon = config.action_horizon + extra_horizon(config)
    sampler = WindowSampler(
        store, horizon, samples, seed, history=config.history, in_flight=config.in_flight
    )
    reader = WindowReader(config, sampler.instructions, torch.device("cpu"))
    draws = policy.draw(samples, torch.Generator().manual_seed(seed))
    return reader.tensors(sampler.batch(0), draws, 0, samples).observation


def synthetic(policy: LoopedPolicy, samples: int, seed: int) -> dict[str, Tensor]:
    """`samples` made-up observations: all cameras, nothing in flight, the known tasks in turn."""
    generator = torch.Generator().manual_seed(seed)
    normalizer = policy.normalizer
    made: dict[str, Tensor] = {}
    for tensor in policy.encode_inputs:
        shape = (samples, *tensor.shape)
        if tensor.is_image:
            made[tensor.name] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        elif tensor.name == PROPRIO:
            noise = torch.randn(shape, generator=generator)
            made[PROPRIO] = normalizer.proprio_mean + normalizer.proprio_spread * noise
        elif tensor.name == INSTRUCTION:
            made[INSTRUCTION] = torch.from_numpy(_told(policy, samples))
        elif tensor.name == AVAILABLE:
            made[AVAILABLE] = torch.ones(shape, dtype=torch.bool)
        else:
            made[tensor.name] = torch.zeros(shape)
    return made


def _told(policy: LoopedPolicy, samples: int) -> np.ndarray:
    vocabulary = policy.config.vocabulary
    assert vocabulary is not None
    said = [vocabulary.instructions[i % len(vocabulary.instructions)] for i in range(samples)]
    return np.stack([vocabulary.told(policy.config.instruction, each) for each in said])
