"""A signal after an OpenVINO back end has gone reaches its handler."""

import subprocess
import sys

import pytest

pytest.importorskip("openvino", reason="openvino is not installed: pip install 'loopdit[openvino]'")

# It happens, or not, to a whole process.
_SCRIPT = """
import signal, threading
from loopdit.deploy.backends.openvino_backend import OpenVinoBackend
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.bundle.bundle import default_bundle

served = [OpenVinoBackend(default_bundle(), BackendOptions(threads=1))]
replacing = threading.Thread(target=served.clear)
replacing.start()
replacing.join()
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop"))
signal.raise_signal(signal.SIGTERM)
print("ended")
"""


def test_a_back_end_that_another_thread_frees_leaves_signals_their_stack():
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "asked to stop\nended\n"), done.stderr
