"""A small exported policy in the peer's place, on every runtime that the peer is timed on."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

import loopdit

pytestmark = pytest.mark.system  # each runtime takes seconds to be made ready

PEERS = Path(loopdit.__file__).parents[2] / "scripts" / "peers"
MODULE: dict[str, Any] = runpy.run_path(str(PEERS / "timed_peer.py"))
STEPS = 10


class Encode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Conv2d(3, 4, 3, stride=2)
        self.both = nn.Linear(4 + 5, 8)

    def forward(self, frames: Tensor, proprio: Tensor) -> Tensor:
        images = frames.flatten(0, 2).permute(0, 3, 1, 2).float() / 255
        seen = self.frames(images).relu().mean((0, 2, 3))
        return self.both(torch.cat([seen[None], proprio[:, -1]], dim=1))


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sample, self.seen = nn.Linear(3, 3), nn.Linear(8, 3)

    def forward(self, sample: Tensor, level: Tensor, conditioning: Tensor) -> Tensor:
        time = level[:, None, None].float() / 100
        return torch.tanh(self.sample(sample) + self.seen(conditioning)[:, None] + time)


@pytest.fixture(scope="module")
def modules() -> tuple[Encode, Step]:
    torch.manual_seed(0)
    return Encode().eval(), Step().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, modules: tuple[Encode, Step]) -> Path:
    found = tmp_path_factory.mktemp("peer")
    encode, step = modules
    frames, proprio = torch.zeros(1, 2, 1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 2, 5)
    given = (torch.zeros(1, 4, 3), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 8))
    torch.export.save(torch.export.export(encode, (frames, proprio)), found / "encode.pt2")
    torch.export.save(torch.export.export(step, given), found / "step.pt2")
    return found


@torch.no_grad()
def by_diffusers(modules: tuple[Encode, Step], given: tuple[np.ndarray, ...]) -> np.ndarray:
    """The chunk as LeRobot computes it, by the scheduler that it uses."""
    frames, proprio, noise = map(torch.from_numpy, given)
    scheduler: Any = DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    scheduler.set_timesteps(STEPS)
    conditioning, sample = modules[0](frames, proprio), noise
    for level in scheduler.timesteps:
        predicted = modules[1](sample, level[None], conditioning)
        sample = scheduler.step(predicted, level, sample).prev_sample
    return sample.numpy()


@pytest.mark.parametrize("runtime", MODULE["RUNTIMES"])
def test_a_chunk_is_lerobots_ddim_on_every_runtime(
    folder: Path, modules: tuple[Encode, Step], runtime: str
):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    peer = MODULE["TimedPeer"](folder, runtime, 1)
    expected = by_diffusers(modules, peer.given())
    np.testing.assert_allclose(peer.chunk(STEPS), expected, atol=1e-5)
    times, _ = peer.time(3, STEPS, 1, 4)
    assert times.shape == (4, 2)
    assert (times > 0).all()
