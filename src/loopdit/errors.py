"""The errors a user of loopdit can act on.

Every message is one or two plain sentences: what was wrong with its value, where it came from,
what to do. Commands print it as one line and exit with status 1, without a traceback; anything
else that escapes a command is a bug in loopdit and shows its traceback.
"""


class LoopditError(Exception):
    """Base of every error that its reader can mend without reading our code."""


class ConfigError(LoopditError):
    """A setting, or a combination of settings, that cannot work."""


class SpecMismatch(LoopditError):
    """Two sides disagree on what an observation or an action is."""


class ObservationError(LoopditError):
    """An observation does not have the names, shapes or dtypes its spec declares."""


class StoreError(LoopditError):
    """An episode store cannot be read, written or continued."""


class CheckpointError(LoopditError):
    """A training checkpoint cannot be loaded or resumed."""


class BundleError(LoopditError):
    """An exported bundle is missing, damaged, or of another format version."""


class OutOfMemory(BundleError):
    """A bundle's policy needs more memory than is free, on its GPU or the machine."""


class ServerError(LoopditError):
    """The policy server refused, failed, or could not be reached."""


class RenderingError(LoopditError):
    """No OpenGL back end renders here."""


class EvaluationFailed(LoopditError):
    """Every rollout of an evaluation raised an error: it measured nothing."""
