"""Whether decoders read actions of held-out episodes better than a constant, with and without care.

    policy-data convert PATH/TO/bridge outputs/bridge.zarr mapping=bridge
    python scripts/bench_decoders.py data=outputs/bridge.zarr

Each decoder learns from the features of a small video model (that of experiment 26: of CogVideoX's
class, taught to denoise these clips, K = 1, left as it is) as it comes, and with what one does for
few episodes: dropout on what it reads, weight decay, and the step of its training that was best on
episodes held out for that. What is told is of others, held out from both: the episodes are dealt
into folds, and each is tested on once. The constant is the mean action of the fold's training
episodes. The video model has seen all clips, and no action.

Errors are of the first action of a chunk, in units of the first and last percentile; a ratio below
1 is better than the constant. Prints JSON: each fold, and mean and standard deviation over them.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopdit.command import Command, option, run_command
from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.statistics import compute_statistics
from loopdit.datasets.video.clips import ClipConfig
from loopdit.errors import ConfigError
from loopdit.eval.experiments.graft.backbone import BackboneOptions, pretrained, untrained
from loopdit.eval.experiments.graft.clips import Clips, ClipTensors, open_clips
from loopdit.eval.experiments.graft.probes import features_of
from loopdit.machine import machine_and_versions
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.decoders.action_errors import ActionErrors, ErrorSum
from loopdit.policy.graft.decoders.config import DIRECT, PAPER, RICH, DecoderConfig
from loopdit.policy.graft.decoders.decoder import ActionDecoder, make_decoder
from loopdit.policy.graft.features import Features
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.graft.latents import LatentEncoder
from loopdit.policy.graft.policy_config import GraftPolicyConfig
from loopdit.policy.normalizer import QUANTILE, Normalizer
from loopdit.policy.objectives.gripper import gripper_mask
from loopdit.policy.training.steps import scheduled_rate

_HORIZON, _WIDTH, _BATCH, _RATE, _WARMUP = 4, 64, 32, 3e-3, 20
_LOOK_EVERY = 20  # steps
_PLAIN_DECAY, _CAREFUL_DECAY, _DROPOUT = 1e-3, 0.3, 0.5
_HELD_OUT = 4  # training episodes of a fold to stop by
_DECODERS = {
    "rich, flow": DecoderConfig(RICH, _WIDTH),
    "rich, regression": DecoderConfig(RICH, _WIDTH, objective="regression"),
    "direct": DecoderConfig(DIRECT, _WIDTH),
    "paper": DecoderConfig(PAPER),
}


@dataclass(frozen=True)
class BenchDecodersConfig:
    """What is learned from, and for how long."""

    data: str = option("outputs/bridge.zarr", "episode store")
    folds: int = option(5, "parts that the episodes are dealt into")
    steps: int = option(300, "of each decoder")
    backbone: BackboneOptions = option(BackboneOptions(steps=1000), "")
    video: ClipConfig = option(ClipConfig(height=48, width=48), "")

    def __post_init__(self) -> None:
        if self.folds < 2 or self.steps < _LOOK_EVERY:
            raise ConfigError(f"give folds=2 or more, and steps={_LOOK_EVERY} or more.")


@dataclass(frozen=True)
class _Data:
    """All clips, with the episode (M,) that each is of."""

    clips: Clips
    tensors: ClipTensors
    features: Features
    episode: Tensor
    gripper: Tensor

    def rows(self, episodes: Sequence[int]) -> Tensor:
        """The clips of these episodes."""
        return torch.isin(self.episode, torch.tensor(episodes)).nonzero()[:, 0]


def run(config: BenchDecodersConfig) -> None:
    """Measure and print."""
    device = torch.device("cpu")
    backbone = untrained(config.backbone)
    encoder = LatentEncoder(backbone.vae)
    with open_clips(config.data, config.video, encoder, 0.2, device) as clips:
        backbone = pretrained(backbone, config.backbone, clips)
        options = GraftPolicyConfig(
            model="tiny",
            graft=GraftConfig(loops=1),
            video=config.video,
            decoder=DecoderConfig(PAPER),
            action_horizon=1,
            noise_level=100,
            text="learned",
            instructions=["untold"],
        )
        policy = GraftPolicy(clips.spec, options, backbone).eval()
        torch.nn.init.zeros_(policy.text.tokens.requires_grad_(False))
        data = _read(policy, clips)
        rows = [_fold(data, policy, fold, config) for fold in range(config.folds)]
    told = {
        "episodes": len(data.episode.unique()),
        "clips": len(data.episode),
        "decoders": {name: _summary([row[name] for row in rows]) for name in rows[0]},
        "folds": rows,
    }
    sys.stdout.write(json.dumps(told | machine_and_versions(), indent=1) + "\n")


def _read(policy: GraftPolicy, clips: Clips) -> _Data:
    episodes = sorted([*clips.training.episodes, *clips.held_out.episodes])
    each = [
        clips.measured(DataPart(clips.training.store, [i]), _HORIZON, sys.maxsize) for i in episodes
    ]
    tensors = ClipTensors(
        *(torch.cat([getattr(t, name) for t in each]) for name in ("latents", "actions", "valid"))
    )
    features = features_of(policy, tensors.latents, torch.autocast("cpu", enabled=False))
    episode = torch.cat(
        [torch.full((len(t.actions),), i) for i, t in zip(episodes, each, strict=True)]
    )
    return _Data(clips, tensors, features, episode, gripper_mask(clips.spec, ["gripper"]))


def _fold(
    data: _Data, policy: GraftPolicy, fold: int, config: BenchDecodersConfig
) -> dict[str, dict[str, float]]:
    """Errors by decoder, each by its ratio to the constant's."""
    generator = torch.Generator().manual_seed(0)
    episodes = data.episode.unique()
    dealt = episodes[torch.randperm(len(episodes), generator=generator)].tolist()
    test = dealt[fold :: config.folds]
    rest = [i for i in dealt if i not in test]
    found: dict[str, dict[str, float]] = {}
    for name, options in _DECODERS.items():
        found[name] = _learned(data, policy, options, rest, [], test, fold, config.steps)
        careful = options if options.kind == PAPER else replace(options, dropout=_DROPOUT)
        held, learned = rest[:_HELD_OUT], rest[_HELD_OUT:]
        found[f"{name}, with care"] = _learned(
            data, policy, careful, learned, held, test, fold, config.steps
        )
    return found


def _learned(
    data: _Data,
    policy: GraftPolicy,
    options: DecoderConfig,
    learned: list[int],
    held: list[int],
    test: list[int],
    seed: int,
    steps: int,
) -> dict[str, float]:
    """Of a decoder that learned from some episodes and was tested on others; with `held` ones its
    best step counts, and its weights decay."""
    part = DataPart(data.clips.training.store, learned)
    statistics = compute_statistics([part], DecodedCache.default(), data.clips.filter)
    kept = [i for i, is_gripper in enumerate(data.gripper.tolist()) if is_gripper]
    policy.normalizer.fit(statistics, {"action": QUANTILE}, {"action": kept})
    torch.manual_seed(seed)
    channels = data.features.sample.shape[2]
    width, actions = data.features.hidden.shape[-1], len(data.gripper)
    horizon = 1 if options.kind == PAPER else _HORIZON
    decoder = make_decoder(options, width, channels, horizon, actions, data.gripper)
    best, chosen = float("inf"), steps
    state: Mapping[str, Tensor] = {}
    mean = statistics["action"].mean
    for step in _trained(
        decoder, data, policy.normalizer, data.rows(learned), bool(held), seed, steps
    ):
        if held and step % _LOOK_EVERY == 0:
            error = _errors(decoder, data, policy.normalizer, data.rows(held), mean)
            if error.predicted().normalised < best:
                best, chosen = error.predicted().normalised, step
                state = {key: value.clone() for key, value in decoder.state_dict().items()}
    if held:
        decoder.load_state_dict(state)
    errors = _errors(decoder, data, policy.normalizer, data.rows(test), mean)
    seen = _errors(decoder, data, policy.normalizer, data.rows(learned), mean).predicted()
    return _told(errors.predicted(), errors.constant()) | {
        "train": round(seen.normalised, 4),
        "step": float(chosen),
    }


def _trained(
    decoder: ActionDecoder,
    data: _Data,
    normalizer: Normalizer,
    rows: Tensor,
    careful: bool,
    seed: int,
    steps: int,
) -> Any:
    """Each step once it is done, counted from 1."""
    generator = torch.Generator().manual_seed(seed)
    chunk = normalizer.chunk(data.tensors.actions)[:, : decoder.horizon]
    valid = data.tensors.valid[:, : decoder.horizon]
    decay = _CAREFUL_DECAY if careful else _PLAIN_DECAY
    optimizer = torch.optim.AdamW(
        decoder.parameters(), _RATE, betas=(0.9, 0.95), weight_decay=decay
    )
    for step in range(steps):
        rate = scheduled_rate(_RATE, step, _WARMUP, step / steps)
        optimizer.param_groups[0]["lr"] = rate
        mine = rows[torch.randint(len(rows), (_BATCH,), generator=generator)]
        drawn = decoder.draw(_BATCH, chunk.shape[-1], generator)
        decoder.train()
        loss = decoder.loss(_features(data, mine), chunk[mine], valid[mine], *drawn)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield step + 1


@torch.no_grad()
def _errors(
    decoder: ActionDecoder, data: _Data, normalizer: Normalizer, rows: Tensor, mean: Sequence[float]
) -> ErrorSum:
    """Of first actions, sampled from no starting noise."""
    decoder.eval()
    errors = ErrorSum(normalizer, mean, data.gripper)
    blank = torch.zeros(len(rows), decoder.horizon, len(data.gripper))
    chunk = decoder.sample(_features(data, rows), blank)
    errors.add(chunk[:, :1], data.tensors.actions[rows][:, :1], data.tensors.valid[rows][:, :1])
    return errors


def _features(data: _Data, rows: Tensor) -> Features:
    return Features(data.features.hidden[rows].float(), data.features.sample[rows].float())


def _told(found: ActionErrors, constant: ActionErrors) -> dict[str, float]:
    return {
        "error": round(found.normalised, 4),
        "constant": round(constant.normalised, 4),
        "ratio": round(found.normalised / constant.normalised, 4),
        "arm_ratio": round(found.arm_normalised / constant.arm_normalised, 4),
        "gripper_wrong": round(found.gripper_wrong, 4),
        "constant_gripper_wrong": round(constant.gripper_wrong, 4),
    }


def _summary(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean and standard deviation over folds."""
    return {
        name: [round(float(f([row[name] for row in rows])), 4) for f in (np.mean, _spread)]
        for name in rows[0]
    }


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))


COMMAND = Command(
    name="bench_decoders",
    folder="bench_decoders",
    summary="action decoders on held-out episodes beside a constant, with and without care.",
    examples=("python scripts/bench_decoders.py data=outputs/bridge.zarr",),
)

if __name__ == "__main__":
    run_command(COMMAND, BenchDecodersConfig, run)
