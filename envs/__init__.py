"""MuJoCo tasks as Gymnasium environments with 7-D actions, and their scripted experts.

`registry.make_env` is the way in. MuJoCo reads MUJOCO_GL once, when it is imported, and its own
default needs a display: so the headless default is set here, before any of our modules imports it.
"""

import os
import sys

if "MUJOCO_GL" not in os.environ and "mujoco" not in sys.modules:
    os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = "egl"
    os.environ["LOOPDIT_GL_DEFAULT"] = "egl"  # ours, so `gl.choose_gl` may still try others
