"""Choose the OpenGL back end that really renders here, before MuJoCo is imported.

MuJoCo reads MUJOCO_GL when it is imported and fails in ways that name neither the cause nor the
cure (its default back end needs a display; osmesa without its library is an AttributeError). So
each back end is tried in a child process, because a broken driver may abort the process.

`python -m loopdit.envs.gl` prints the back end, or the packages that are missing.
"""

import os
import subprocess
import sys

from loopdit.errors import RenderingError

BACKENDS = ("egl", "osmesa")
PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"
# Set once a back end has rendered, and inherited by child processes, so that only the first pays.
_PROBED = "LOOPDIT_GL_PROBED"
_DEFAULT = "LOOPDIT_GL_DEFAULT"

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


def choose_gl() -> str:
    """Set MUJOCO_GL to a back end that renders, and return its name.

    A MUJOCO_GL that is already set is tried and used alone. Raises RenderingError naming the
    packages to install when none renders.
    """
    wanted = os.environ.get("MUJOCO_GL")
    if not wanted and "mujoco" in sys.modules:
        return _of_imported_mujoco()
    if wanted and os.environ.get(_PROBED) == wanted:
        return wanted
    if wanted == os.environ.get(_DEFAULT):  # set by this package, not by the user
        wanted = None
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
