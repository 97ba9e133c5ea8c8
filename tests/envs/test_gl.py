import os
import subprocess
import sys
from pathlib import Path


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


def test_a_mujoco_that_was_imported_too_early_is_said_and_how_to_mend_it():
    code = (
        "import mujoco\n"
        "from loopdit.errors import RenderingError\n"
        "from loopdit.envs.registry import make_env\n"
        "try: make_env('lift')\n"
        "except RenderingError as error: print(error)"
    )
    hidden = ("MUJOCO_GL", "LOOPDIT_GL", "DISPLAY", "PYOPENGL_PLATFORM")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True
    )
    assert "Import loopdit.envs first" in done.stdout


def test_an_environment_without_opengl_says_so_and_not_a_traceback(tmp_path: Path):
    code = (
        "from loopdit.errors import RenderingError\n"
        "from loopdit.envs.registry import make_env\n"
        "try: make_env('lift')\n"
        "except RenderingError as error: print(error)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MUJOCO_GL", "LOOPDIT_GL"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Install it with" in done.stdout
