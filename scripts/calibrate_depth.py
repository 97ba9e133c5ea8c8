"""Find the threshold of adaptive depth for a checkpoint, on the observations of an episode store.

Writes adaptive_depth.json beside the checkpoint, for policy-eval's adaptive=calibrated, and says
what the threshold takes: mean loops, and the share of observations at each K.

    python scripts/calibrate_depth.py CHECKPOINT STORE [--mean-loops 2.5 | --quantile 0.5]
        [--measure chunk|state] [--observations 2000]
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.windows import WindowSampler
from loopdit.deploy.bundle.manifest import MANIFEST as BUNDLE_FILE
from loopdit.errors import ConfigError, LoopditError
from loopdit.policy.checkpoint import load_checkpoint
from loopdit.policy.depth_calibration import ADAPTIVE_DEPTH, calibrate, save_calibration
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.stopping_rule import CHUNK, MEASURES
from loopdit.policy.training.in_flight import extra_horizon
from loopdit.policy.training.window_tensors import WindowReader

_BATCH = 50


def main() -> None:
    """Calibrate, write, say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("store")
    parser.add_argument("--mean-loops", type=float)
    parser.add_argument("--quantile", type=float)
    parser.add_argument("--measure", choices=MEASURES, default=CHUNK)
    parser.add_argument("--observations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        _require_checkpoint(options.checkpoint)
        loaded = load_checkpoint(options.checkpoint)
        store = EpisodeStore.open(options.store)
        loaded.policy.spec.recorded.require_equal(
            store.spec, str(options.checkpoint), options.store, "Calibrate on data it is made for."
        )
        found = calibrate(
            loaded.policy,
            _observations(loaded.policy, store, options.observations, options.seed),
            loaded.weights_sha256,
            options.mean_loops,
            options.quantile,
            options.measure,
        )
        save_calibration(options.checkpoint, found)
    except LoopditError as error:
        sys.exit(f"calibrate_depth: error: {error}")
    shares = ", ".join(f"K={k} {share:.0%}" for k, share in enumerate(found.shares, start=1))
    sys.stdout.write(
        f"{options.checkpoint / ADAPTIVE_DEPTH}: {found.measure}:{found.threshold:.6g} takes "
        f"{found.mean_loops:.3f} loops on average of {found.observations} observations ({shares})\n"
    )


def _require_checkpoint(path: Path) -> None:
    """A bundle has a checkpoint in it, and graphs that run all K loops: it can stop at none."""
    if path.is_file() or (path / BUNDLE_FILE).exists():
        raise ConfigError(
            f"{path} is a bundle, whose graphs do not stop between two loops. Calibrate the "
            f"checkpoint that it was exported from."
        )


def _observations(
    policy: LoopedPolicy, store: EpisodeStore, count: int, seed: int
) -> Iterator[dict[str, Tensor]]:
    """`count` of the store's observations in batches, at random, none twice before all were."""
    config = policy.config
    horizon = config.action_horizon + extra_horizon(config)
    sampler = WindowSampler(
        store, horizon, _BATCH, seed, history=config.history, in_flight=config.in_flight
    )
    reader = WindowReader(config, sampler.instructions, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    for step in range(-(-count // _BATCH)):
        draws = policy.draw(_BATCH, generator)
        yield reader.tensors(sampler.batch(step), draws, 0, _BATCH).observation


if __name__ == "__main__":
    main()
