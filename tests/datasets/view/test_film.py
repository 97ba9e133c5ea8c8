import base64
import io

import numpy as np
import pytest
from PIL import Image

from loopdit.datasets.view.film import film


def frames(count: int, height: int, width: int) -> np.ndarray:
    """Each of one grey, which rises by 2 a step."""
    greys = (2 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (count, height, width, 3)).copy()


def decoded(url: str) -> np.ndarray:
    head, _, content = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize(("count", "most"), [(100, 7), (5, 60), (1, 4), (60, 60), (10, 1)])
def test_frames_are_spread_evenly_over_the_episode_and_show_their_step(count: int, most: int):
    made = film(frames(count, 8, 8), most, 64)
    assert len(made.steps) == len(made.jpegs) == min(count, most)
    assert made.steps[0] == 0
    if most > 1:
        assert made.steps[-1] == count - 1
        gaps = np.diff(made.steps)
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    for step, url in zip(made.steps, made.urls, strict=True):
        assert abs(decoded(url).mean() - 2 * step) < 2


def test_frames_are_made_smaller_and_never_larger():
    wide = film(frames(2, 100, 200), 2, 50)
    assert (wide.width, wide.height) == (50, 25)
    assert decoded(wide.urls[0]).shape == (25, 50, 3)
    assert decoded(film(frames(2, 10, 20), 2, 50).urls[0]).shape == (10, 20, 3)
