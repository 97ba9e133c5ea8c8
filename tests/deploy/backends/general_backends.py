"""The back ends that run every policy and load at once, for tests to be parametrised with."""

from loopdit.deploy.backends.registry import KINDS

# Those not installed here are left out. The others have tests of their own: they compile first, or
# run some policies only.
GENERAL = tuple(
    name for name in ("onnxruntime", "openvino", "torch") if KINDS[name].unavailable() is None
)
