"""Choose the renderer that really works here, before MuJoCo is imported.

MuJoCo reads MUJOCO_GL when it is imported and fails in ways that name neither the cause nor the
cure (its default back end needs a display; osmesa without its library is an AttributeError). So
each back end is tried in a child process, because a broken driver may abort the process.

Where no OpenGL renders, `raycast` does without, slowly; `choose_renderer` says so.

`python -m loopdit.envs.gl` prints the back end, or the packages that are missing.
"""

import os
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

from loopdit.errors import ConfigError, RenderingError

# What may be asked for: any, OpenGL or nothing, rays.
RENDERERS = ("auto", "gl", "ray")
RAY_CAST = "ray-cast"
_RENDERER = "LOOPDIT_RENDERER"
BACKENDS = ("egl", "osmesa")
PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"
# Set once a back end has rendered, and inherited by child processes, so that only the first pays.
_PROBED = "LOOPDIT_GL_PROBED"
_DEFAULT = "LOOPDIT_GL_DEFAULT"
# Why none renders, and that the user knows: inherited likewise.
_FAILED = "LOOPDIT_GL_FAILED"
_SAID = "LOOPDIT_GL_SAID"

_PROBE = """
import mujoco, sys
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 2"/><geom type="sphere" size=".1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
pixels = renderer.render()
renderer.close()
sys.exit(0 if pixels.std() > 0 else "the rendered image is blank")
"""


def choose_renderer(wanted: str = "auto") -> str:
    """The renderer to use: the name of an OpenGL back end, or "ray-cast".

    `wanted`: "gl"; "ray"; or "auto", OpenGL where it renders, else rays and a line on stderr. The
    variable LOOPDIT_RENDERER overrides it. Raises ConfigError for another name, RenderingError for
    "gl" where no OpenGL renders.
    """
    source = _RENDERER if os.environ.get(_RENDERER) else "renderer"
    wanted = os.environ.get(_RENDERER) or wanted
    if wanted not in RENDERERS:
        raise ConfigError(f"{source}={wanted} is unknown. Use one of: {', '.join(RENDERERS)}.")
    try:
        backend = choose_gl()
    except RenderingError as error:
        if wanted == "gl":
            raise
        _do_without(str(error), aloud=wanted == "auto")
        return RAY_CAST
    return RAY_CAST if wanted == "ray" else backend


def _load_triton() -> None:
    """Before OpenGL, where it is installed. PyOpenGL makes the names of Mesa's LLVM global, and
    triton, which brings an LLVM of its own, crashes the process if it is loaded after that (triton
    3.7.1 with Mesa's software renderer). torch and diffusers load it by themselves."""
    if find_spec("triton") is not None:
        with suppress(ImportError):
            import_module("triton")


def choose_gl() -> str:
    """Set MUJOCO_GL to a back end that renders, and return its name.

    A MUJOCO_GL that is already set is tried and used alone. Raises RenderingError naming the
    packages to install when none renders.
    """
    _load_triton()
    wanted = os.environ.get("MUJOCO_GL")
    if not wanted and "mujoco" in sys.modules:
        return _of_imported_mujoco()
    if wanted and os.environ.get(_PROBED) == wanted:
        return wanted
    if wanted == os.environ.get(_DEFAULT):  # set by this package, not by the user
        wanted = None
        if reason := os.environ.get(_FAILED):
            raise RenderingError(reason)
    reasons: list[str] = []
    for name in [wanted] if wanted else BACKENDS:
        reason = _why_not(name)
        if reason is None:
            _use(name)
            return name
        reasons.append(f"{name}: {reason}")
    remedy = (
        "Unset MUJOCO_GL to let loopdit choose"
        if wanted
        else f"Install it with: apt-get install -y {PACKAGES}"
    )
    raise RenderingError(f"no headless OpenGL renders here ({'; '.join(reasons)}). {remedy}.")


def _do_without(reason: str, *, aloud: bool) -> None:
    """Keep MuJoCo, if it is not imported yet, from loading the OpenGL that does not work."""
    if "mujoco" not in sys.modules:
        os.environ["MUJOCO_GL"] = os.environ[_DEFAULT] = "disable"
        os.environ[_FAILED] = reason
    if aloud and _SAID not in os.environ:
        os.environ[_SAID] = "1"
        sys.stderr.write(
            "loopdit: cameras are ray-cast, which is slow, and pixels differ a little from those "
            f"of OpenGL: {reason}\n"
        )


def _of_imported_mujoco() -> str:
    if os.environ.get("DISPLAY"):
        return "glfw"
    raise RenderingError(
        "mujoco was imported before loopdit.envs and without MUJOCO_GL, so it renders only with a "
        "display. Import loopdit.envs first, or set MUJOCO_GL=egl."
    )


def _use(name: str) -> None:
    os.environ["MUJOCO_GL"] = name
    os.environ["PYOPENGL_PLATFORM"] = name
    os.environ[_PROBED] = name
    # llvmpipe is as fast on one thread as on two, and one leaves a core to the policy.
    os.environ.setdefault("LP_NUM_THREADS", "1")


def _why_not(name: str) -> str | None:
    environment = {**os.environ, "MUJOCO_GL": name, "PYOPENGL_PLATFORM": name}
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "did not render within 120 s"
    if probe.returncode == 0:
        return None
    lines = probe.stderr.strip().splitlines()
    return lines[-1][:160] if lines else f"the process ended with status {probe.returncode}"


if __name__ == "__main__":
    try:
        sys.stdout.write(choose_gl() + "\n")
    except RenderingError as error:
        sys.exit(str(error))
