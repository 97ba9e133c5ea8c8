"""Which encoder makes tokens of a camera's frames, by name.

An encoder is a module with `tokens`, how many it makes, and a forward of frames (B, 3, S, S) in
[-1, 1] -> (B, tokens, width). None of them draws a random number or keeps running statistics in
training: the trainer's average and a resumed run know of weights alone.

    keypoints           small convolutions, expected positions of features: 4 tokens, the default
    pooled, pooled:3    small convolutions, means over a 2 x 2 (3 x 3) grid: 4 (9) tokens
    patches, patches:8  16 patches, or patches of 8 x 8 pixels
    pretrained:NAME     a backbone of the Hugging Face hub, from files that are here already

`scripts/bench_encoders.py` shows what each costs.
"""

from collections.abc import Mapping
from typing import Any

from loopdit.errors import ConfigError
from loopdit.policy.encoders.keypoints import KeypointEncoder
from loopdit.policy.encoders.patches import PatchEncoder
from loopdit.policy.encoders.pooled import PooledEncoder
from loopdit.policy.encoders.pretrained import PretrainedEncoder

ImageEncoder = KeypointEncoder | PooledEncoder | PatchEncoder | PretrainedEncoder

KINDS = ("keypoints", "pooled", "patches", "pretrained:NAME")


def make_encoder(
    kind: str,
    width: int,
    image_size: int,
    frozen: bool = True,
    configuration: Mapping[str, Any] | None = None,
) -> ImageEncoder:
    """A fresh encoder of one camera with frames of `image_size` pixels a side.

    `frozen` and `configuration` are of a pretrained backbone: whether its weights stay as they are,
    and what makes it without its files (`PretrainedEncoder.configuration`).
    Raises ConfigError for an unknown kind, or one that such frames or this machine do not allow.
    """
    name, _, detail = kind.partition(":")
    if name == "pretrained" and detail:
        return PretrainedEncoder(
            detail, width, image_size, frozen=frozen, configuration=configuration
        )
    if name == "keypoints" and not detail:
        return KeypointEncoder(width)
    if name == "pooled":
        return PooledEncoder(width, image_size, _number(kind, detail, 2))
    if name == "patches":
        return PatchEncoder(width, image_size, _number(kind, detail, 0))
    raise ConfigError(f"policy.encoder={kind} is not known. Choose one of: {', '.join(KINDS)}.")


def _number(kind: str, detail: str, default: int) -> int:
    """The number after the colon, `default` where there is none."""
    if not detail:
        return default
    if not detail.isascii() or not detail.isdigit() or int(detail) == 0:
        raise ConfigError(
            f"policy.encoder={kind}: {detail!r} is not a whole number above 0. Write pooled:CELLS "
            f"or patches:PIXELS."
        )
    return int(detail)
