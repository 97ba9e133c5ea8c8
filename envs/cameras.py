"""Headless rendering of the named cameras. `loopdit.envs.gl.choose_gl` must have run before."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import atexit
import weakref
from functools import cache

import mujoco
import numpy as np


class CameraRig:
    """Renders cameras of one model at fixed sizes; owns the OpenGL contexts."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._renderers: dict[int, mujoco.Renderer] = {}
        _open_rigs.add(self)

    def frame(self, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """One RGB frame (size, size, 3) uint8."""
        if size not in self._renderers:
            renderer = mujoco.Renderer(self._model, size, size)
            # Shadows are 80 to 90 % of the time of a software renderer.
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._renderers[size] = renderer
            _close_at_exit()
        renderer = self._renderers[size]
        renderer.update_scene(data, camera)
        return renderer.render()

    def close(self) -> None:
        """Free the OpenGL contexts; the next frame makes new ones."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


_open_rigs: weakref.WeakSet[CameraRig] = weakref.WeakSet()


@cache
def _close_at_exit() -> None:
    """Called after the first renderer: MuJoCo registers the end of EGL when it makes that one, exit
    handlers run last in first out, and a context freed after EGL's end prints a traceback."""
    atexit.register(lambda: [rig.close() for rig in list(_open_rigs)])
