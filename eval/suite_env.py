"""A public suite's environment by name, wherever its package can be imported.

Here when this Python has it; otherwise in a child process under the suite's own interpreter, which
`make suites SUITE=...` puts into `.suites/<folder>`, because the suites pin versions of MuJoCo that
exclude each other. `tcp://HOST:PORT` names a server that runs already. Which one it was makes no
difference to its caller.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import loopdit
from loopdit.envs.suites.catalogue import SUITES, Suite, make_here, suite_of
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment
from loopdit.eval.remote_env import RemoteEnv

_LAST_LINES = 4


def is_suite_env(name: str) -> bool:
    """Whether `make_suite_env` is the one to ask for the environment of this name."""
    return "://" in name or suite_of(name) is not None


def make_suite_env(name: str, image_size: int = 64) -> Environment:
    """The environment `name` (as metaworld/reach-v3), with camera frames of `image_size` pixels
    or, for 0, without cameras.

    Raises ConfigError for an unknown name or a suite that is not installed, ServerError when its
    process dies or nobody answers.
    """
    if "://" in name:
        return RemoteEnv(name, image_size)
    suite = suite_of(name)
    if suite is None:
        known = ", ".join(f"{prefix}/{suite.example}" for prefix, suite in SUITES.items())
        raise ConfigError(f"env={name} is of no suite known here. Names look like: {known}.")
    if suite.importable():
        return make_here(name, image_size)
    process = SuiteProcess(interpreter_of(suite, name), name)
    return RemoteEnv(
        process.endpoint, image_size, name, ended=process.ended, on_close=process.close
    )


def interpreter_of(suite: Suite, name: str) -> Path:
    """The Python of the suite's own environment. Raises ConfigError where there is none."""
    root = Path(loopdit.__file__).parents[2]
    suites = Path(os.environ.get("LOOPDIT_SUITES") or root / ".suites")
    python = suites / suite.folder / "bin" / "python"
    if not python.exists():
        raise ConfigError(
            f"env={name} needs {suite.package}, which is not in this environment and has none of "
            f"its own at {python.parents[1]}. Make one with: make suites SUITE={suite.folder}"
        )
    return python


class SuiteProcess:
    """`loopdit.eval.env_server` under another Python, as a child that dies with this process."""

    def __init__(self, python: Path, name: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="loopdit-"))
        self.endpoint = f"ipc://{self._folder}/env"
        self._log = (self._folder / "stderr").open("w+b")
        # -P: not the present folder first, which may be our own repository with its `datasets`.
        command = [str(python), "-P", "-m", "loopdit.eval.env_server", f"env={name}"]
        self._process = subprocess.Popen(
            [*command, f"endpoint={self.endpoint}", "orphan=exit"],
            # It ends when this pipe closes, however we end; Ctrl-C is ours to act on.
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            cwd=self._folder,  # MuJoCo writes MUJOCO_LOG.TXT into the present folder
            start_new_session=True,
        )

    def ended(self) -> str | None:
        """None while it runs, else how it ended, with the last it said."""
        status = self._process.poll()
        if status is None:
            return None
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{how}{self._last_words()}"

    def close(self) -> None:
        """End it and remove what it left."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _last_words(self) -> str:
        if self._log.closed:
            return "."
        self._log.flush()
        text = (self._folder / "stderr").read_text(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f": {' | '.join(lines[-_LAST_LINES:])[:600]}." if lines else "."
