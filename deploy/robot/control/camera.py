"""The newest frame of a camera, for a robot that publishes what it observes.

    with Camera("0", (64, 64)) as camera, RobotLink() as link:
        link.observe({"images.front": camera.frame(), "proprio": felt()})

OpenCV captures (`pip install 'loopdit[camera]'`): a device by its number, a file, or the address of
a stream. A thread reads as fast as frames come and keeps the newest one, because a capture queues
them: whoever reads only when asked gets one that is some frames old.
"""

import threading
import time

import numpy as np

from loopdit.errors import ConfigError, ServerError

_FIRST_FRAME_S = 10.0
_STALE_S = 1.0


class Camera:
    """Frames (H, W, 3) uint8 RGB of `source`, cut to the middle and resized to `size` (H, W).

    Raises ConfigError without OpenCV, ServerError where nothing can be captured. `captured` counts
    the frames that came.
    """

    def __init__(self, source: str, size: tuple[int, int]) -> None:
        try:
            import cv2
        except ImportError as error:
            raise ConfigError(
                "capturing from a camera needs OpenCV: pip install 'loopdit[camera]'."
            ) from error
        self._cv2 = cv2
        self._source = source
        self._size = size
        self._capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
        if not self._capture.isOpened():
            raise ServerError(
                f"camera {source} cannot be opened. Is it connected, does another program have it, "
                f"and may this user read it (group video)?"
            )
        self._changed = threading.Condition()
        self._newest: np.ndarray | None = None
        self._came_s = 0.0
        self._closing = False
        self.captured = 0
        self._thread = threading.Thread(target=self._read, name=f"camera-{source}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frame(self) -> np.ndarray:
        """The newest one. Waits for the first; raises ServerError where none comes, or none has
        come for a second: a picture that stands still looks like a robot that does."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None, _FIRST_FRAME_S)
            newest, age_s = self._newest, time.monotonic() - self._came_s
        if newest is None or age_s > _STALE_S:
            raise ServerError(f"camera {self._source} sends no frames any more.")
        return self._fitted(newest)

    def close(self) -> None:
        """Give the camera back."""
        self._closing = True
        self._thread.join(_STALE_S)
        self._capture.release()

    def _read(self) -> None:
        while not self._closing:
            there, frame = self._capture.read()
            if not there:
                return
            with self._changed:
                self._newest, self._came_s = frame, time.monotonic()
                self.captured += 1
                self._changed.notify_all()

    def _fitted(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        wanted = self._size[1] / self._size[0]
        kept_h, kept_w = min(height, round(width / wanted)), min(width, round(height * wanted))
        top, left = (height - kept_h) // 2, (width - kept_w) // 2
        middle = frame[top : top + kept_h, left : left + kept_w]
        resized = self._cv2.resize(
            middle, (self._size[1], self._size[0]), interpolation=self._cv2.INTER_AREA
        )
        return self._cv2.cvtColor(resized, self._cv2.COLOR_BGR2RGB)
