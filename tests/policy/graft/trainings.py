"""The options of a training at the smallest size, and a way to stop one."""

from pathlib import Path
from typing import Any

from loopdit.datasets.video.clips import ClipConfig
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.decoders.config import DecoderConfig
from loopdit.policy.graft.train_config import GraftTrainConfig
from loopdit.policy.objectives.depth import DepthConfig


def small_training(squares: str, out: Path, **changes: Any) -> GraftTrainConfig:
    """Four steps on `squares_store`, on the CPU."""
    given: dict[str, Any] = {
        "data": squares,
        "out": str(out),
        "latents": str(Path(squares).parent / "latents"),
        "steps": 4,
        "batch_size": 4,
        "action_horizon": 4,
        "validation": 0.2,
        "validate_every": 2,
        "device": "cpu",
        "threads": 1,
        "workers": 0,
        "save_every_s": 0.0,
        "graft": GraftConfig(loops=2),
        "video": ClipConfig(height=32, width=48),
        "decoder": DecoderConfig(width=32, blocks=1),
        "depth": DepthConfig(mode="random"),
    }
    return GraftTrainConfig(**(given | changes))
