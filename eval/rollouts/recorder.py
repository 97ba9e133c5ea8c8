"""Makes a video of a rollout while it is driven, whoever drives it."""

from pathlib import Path

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment
from loopdit.eval.reporting.video import picture, write_mp4

VIDEOS = "videos"  # the folder beside the results
# A looping video stands still on its end for this long, so that the outcome can be seen.
_LAST_PICTURE_S = 1.0


class Recorder:
    """The pictures of one rollout: give `add` to it, then `write`."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._pictures: list[np.ndarray] = []

    def add(self, observation: Observation) -> None:
        """One step, as people see it and as the cameras do."""
        cameras = [observation[camera.name] for camera in self._env.policy_spec.cameras]
        scene = self._env.render()
        # Height and width have to be even, which `picture` sees to where there are cameras.
        even = scene[: scene.shape[0] // 2 * 2, : scene.shape[1] // 2 * 2]
        self._pictures.append(picture(scene, cameras) if cameras else even)

    def write(self, path: Path) -> None:
        """Make the video. Raises ConfigError when it cannot be written."""
        period_s = self._env.control_period_s
        still = [self._pictures[-1]] * round(_LAST_PICTURE_S / period_s)
        try:
            write_mp4(path, self._pictures + still, period_s)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ConfigError(
                f"cannot write {path}: {error.strerror}. Free space, or use videos=0."
            ) from error


def slug(text: str) -> str:
    """ "Shipped, K=1" -> "shipped-k-1": letters that every file system and URL takes."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
