import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from loopdit.envs.gl import choose_renderer
from loopdit.errors import ConfigError


def probe(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MUJOCO_GL", "LOOPDIT_GL"))}
    clean.pop("PYOPENGL_PLATFORM", None)
    return subprocess.run(
        [sys.executable, "-m", "loopdit.envs.gl"],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_back_end_that_renders_is_found_and_named():
    done = probe()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in ("egl", "osmesa")


def test_a_back_end_that_cannot_render_is_one_sentence_with_the_remedy():
    done = probe(MUJOCO_GL="glfw", DISPLAY="")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "glfw" in done.stderr
    assert "Unset MUJOCO_GL" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_any_opengl_library_the_packages_are_named(tmp_path: Path):
    # An EGL without vendors is what a machine without the Mesa packages has.
    done = probe(__EGL_VENDOR_LIBRARY_DIRS=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0" in done.stderr
    assert "Traceback" not in done.stderr


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process that no OpenGL back end was chosen for."""
    hidden = ("MUJOCO_GL", "LOOPDIT_", "DISPLAY", "PYOPENGL_PLATFORM")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


OPENGL_ONLY = """
from loopdit.errors import RenderingError
from loopdit.envs.registry import make_env
try: make_env("lift", renderer="gl")
except RenderingError as error: print(error)
"""
ANY = """
from loopdit.envs.registry import make_env
for renderer in ("auto", "ray", "auto"):
    env = make_env("lift", image_size=16, renderer=renderer)
    observation, _ = env.reset(seed=0)
    print(env.renderer, observation["images.front"].std() > 1)
"""


def test_a_mujoco_that_was_imported_too_early_is_said_and_how_to_mend_it():
    assert "Import loopdit.envs first" in run("import mujoco\n" + OPENGL_ONLY).stdout


def test_without_opengl_an_environment_that_needs_it_says_so_and_not_a_traceback(tmp_path: Path):
    done = run(OPENGL_ONLY, __EGL_VENDOR_LIBRARY_DIRS=str(tmp_path))
    assert "Install it with" in done.stdout


def test_without_opengl_the_cameras_are_ray_cast_and_one_line_says_so(tmp_path: Path):
    done = run(ANY, __EGL_VENDOR_LIBRARY_DIRS=str(tmp_path))
    assert done.stdout == "ray-cast True\n" * 3
    assert done.stderr.count("\n") == 1
    assert "slow" in done.stderr
    assert "pixels differ" in done.stderr
    assert "apt-get install" in done.stderr


def test_a_variable_overrides_which_renderer_is_used():
    done = run(ANY, LOOPDIT_RENDERER="ray")
    assert (done.stdout, done.stderr) == ("ray-cast True\n" * 3, "")
    found = run(ANY, LOOPDIT_RENDERER="gl").stdout.split()[0]
    assert found in ("egl", "osmesa")


def test_an_unknown_renderer_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"renderer=vulkan is unknown\. .* auto, gl, ray"):
        choose_renderer("vulkan")


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_triton_can_be_loaded_after_a_picture_was_rendered():
    script = (
        "from loopdit.envs.registry import make_env\n"
        "env = make_env('reach')\n"
        "env.reset(seed=0)\n"
        "import triton._C.libtriton\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
