"""LeRobot's diffusion policy as two programs of torch.export, for other runtimes to run.

    export PYTHONPATH=src
    .suites/lerobot/bin/python scripts/peers/export_peer.py OUT [--bundle BUNDLE] [--size tabletop]

Weights are fresh, which no latency depends on; shapes are those of the policy in BUNDLE (the
shipped one by default). OUT gets encode.pt2 (frames uint8 and proprio of the observed steps ->
conditioning), step.pt2 (sample, timestep, conditioning -> predicted noise) and peer.json.
`scripts/bench_peer_backends.py` runs this, and times them.

Shapes: B batch of 1, O observed steps, C cameras, S their side, P proprio, H horizon, A action dim.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lerobot_model import SIZES, make_peer, statistics_of
from torch import Tensor, nn

from loopdit.datasets.spec import PROPRIO, PolicySpec
from loopdit.datasets.statistics import VectorStatistics
from loopdit.whole_file import whole_file

_SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "bundles" / "tabletop"


class Encode(nn.Module):
    """frames (1, O, C, S, S, 3) uint8, proprio (1, O, P) -> conditioning (1, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, frames: Tensor, proprio: Tensor) -> Tensor:
        """As LeRobot's own `generate_actions` begins, its normalisation of frames included."""
        images = (frames.permute(0, 1, 2, 5, 3, 4).float() / 255 - self.mean) / self.std
        given = {"observation.images": images, "observation.state": proprio}
        return self.model._prepare_global_conditioning(given)


def main() -> None:
    """Make, export, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", type=Path, default=_SHIPPED)
    parser.add_argument("--size", choices=SIZES, default="tabletop")
    chosen = parser.parse_args()
    manifest: dict[str, Any] = json.loads((chosen.bundle / "manifest.json").read_text())
    spec = PolicySpec.from_dict(manifest["spec"]).recorded
    lengths = {PROPRIO: spec.proprio.shape[-1], "action": spec.action.shape[-1]}
    statistics = statistics_of(spec, {name: _unit(count) for name, count in lengths.items()})
    peer = make_peer(spec, SIZES[chosen.size], statistics)
    config, model = peer.policy.config, peer.policy.eval().diffusion
    side, cameras, observed = spec.cameras[0].shape[0], len(spec.cameras), config.n_obs_steps
    frames = torch.zeros(1, observed, cameras, side, side, 3, dtype=torch.uint8)
    proprio = torch.zeros(1, observed, lengths[PROPRIO])
    sample = torch.zeros(1, config.horizon, lengths["action"])
    encode = Encode(model).eval()
    with torch.no_grad():
        conditioning = encode(frames, proprio)
        step_inputs = (sample, torch.zeros(1, dtype=torch.int64), conditioning)
        programs = {
            "encode.pt2": torch.export.export(encode, (frames, proprio)),
            "step.pt2": torch.export.export(model.unet.eval(), step_inputs),
        }
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, program in programs.items():
        with whole_file(chosen.out / name) as aside, aside.open("wb") as file:
            torch.export.save(program, file)
    record = {
        "parameters": peer.parameters,
        "size": chosen.size,
        "settings": peer.settings,
        "versions": {name: version(name) for name in ("lerobot", "torch", "torchvision")},
    }
    with whole_file(chosen.out / "peer.json") as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n")
    sys.stdout.write(f"{chosen.out}: {peer.parameters['all']:,} parameters\n")


def _unit(count: int) -> VectorStatistics:
    """Of values in [-1, 1]."""
    zeros, ones, less = (0.0,) * count, (1.0,) * count, (-1.0,) * count
    return VectorStatistics(zeros, ones, less, ones, less, ones)


if __name__ == "__main__":
    main()
