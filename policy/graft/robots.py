"""Several robots in one picture: which tokens of a video transformer see which (section 7).

Shapes: S text tokens, T latent frames of h x w, N = T h w / 4 video tokens, R robots.

Each robot has a band of columns of the picture, left to right, of equal width. What is declared is
a `CanvasTopology` over the text and the robots, which is data; here it becomes the mask of an
attention that otherwise is the transformer's own:

    hub       robots see themselves and the text, the text sees all: what is shared goes through it
    isolated  robots see themselves and the text, the text sees itself: nothing is shared

What is kept apart is attention. The autoencoder before it sees the picture as a whole.
"""

import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.canvas.topology import CanvasTopology, Connection

DENSE, HUB, ISOLATED = "dense", "hub", "isolated"
TOPOLOGIES = (DENSE, HUB, ISOLATED)
_TEXT = "text"


def topology_of(kind: str, robots: int) -> CanvasTopology:
    """The connections of the text and so many robots."""
    names = [f"robot_{i}" for i in range(robots)]
    if kind == HUB:
        return CanvasTopology.hub_and_spoke(_TEXT, names)
    if kind == ISOLATED:
        own = CanvasTopology.isolated([_TEXT, *names]).connections
        return CanvasTopology(own + tuple(Connection(name, _TEXT) for name in names))
    return CanvasTopology.dense([_TEXT, *names])


def robot_of_tokens(frames: int, rows: int, columns: int, robots: int) -> Tensor:
    """Whose each video token is, (N,) int64, of T x rows x columns tokens in the transformer's
    order. Raises ConfigError where columns do not divide into equal bands."""
    if columns % robots:
        raise ConfigError(
            f"graft.robots={robots} do not share {columns} columns of tokens equally. Use a width "
            f"of the picture (video.width) that is a multiple of {16 * robots}."
        )
    band = torch.arange(columns) // (columns // robots)
    return band.repeat(frames * rows)


def token_mask(kind: str, robots: int, text: int, video: Tensor) -> Tensor:
    """Which of the text's and the video's tokens (row) may attend to which (column): bool
    (S + N, S + N). `video` (N,) says whose each video token is."""
    region = {_TEXT: 0} | {f"robot_{i}": i + 1 for i in range(robots)}
    joined = torch.zeros(robots + 1, robots + 1, dtype=torch.bool)
    for connection in topology_of(kind, robots).connections:
        joined[region[connection.source], region[connection.target]] = True
    whose = torch.cat([video.new_zeros(text), video + 1])
    return joined.to(video.device)[whose][:, whose]
