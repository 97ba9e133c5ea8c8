"""What runs a bundle's policy: `protocol`, the `registry` of those there are, one module for each.

`load_backend` imports a runtime only when it is the one chosen, so a missing one costs nothing.
"""

import logging

import numpy as np

from loopdit.deploy.backends.cuda_driver import cuda_driver
from loopdit.deploy.backends.protocol import Backend, Context, run_chunk
from loopdit.deploy.backends.registry import FP32, KINDS, BackendKind, BackendOptions
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.witness import Witness, witness_inputs
from loopdit.errors import BundleError, ConfigError
from loopdit.policy.checkpoint_files import GRAFT

__all__ = [
    "AUTO",
    "BACKEND_NAMES",
    "DEFAULT_THREADS",
    "GRAFT_BACKENDS",
    "Backend",
    "Context",
    "is_graft",
    "load_backend",
    "require_witness",
]

logger = logging.getLogger(__name__)

AUTO = "auto"
GRAFT_BACKENDS = ("cuda-graph", "torch")  # those that run a grafted video model
BACKEND_NAMES = tuple(KINDS)  # "auto" tries them in this order

# One, because at batch 1 the matrices are too small to share: on 2 cores a second thread gained
# nothing when they were quiet (fastest chunk at K = 4: 3.8 ms with one, 4.4 ms with two) and cost
# much when they were busy (torch p50 at K = 4: 56 against 652 ms). It also leaves the other cores
# to the simulator and the cameras.
DEFAULT_THREADS = 1

# How far a lower precision may be from the witness: the mean error as a share of the mean action.
# bf16 was at 0.002 on the shipped policy and at 0.2 on an untrained one; another policy is at 1.
# What a precision costs is for export and evaluation to say: this finds what is no such policy.
_WITNESS_SHARES = {"fp16": 0.1, "bf16": 0.5, "int8": 0.5}


def load_backend(
    bundle: Bundle, name: str = AUTO, threads: int | None = None, precision: str = FP32
) -> Backend:
    """Make the named back end ready; "auto" takes the first of BACKEND_NAMES that runs here.

    "auto" computes in float32 alone, and logs each back end that it passes over with the reason.
    Raises ConfigError for an unknown name or precision; BundleError, with the reason and the
    remedy, when it cannot run here or computes other actions than the trained policy did at export.
    """
    kinds = _candidates(name, precision)
    if name == AUTO and is_graft(bundle):
        kinds = [kind for kind in kinds if kind.name in GRAFT_BACKENDS]
    if threads is not None and threads < 1:
        raise ConfigError(f"threads={threads} must be at least 1.")
    options = BackendOptions(threads or DEFAULT_THREADS, precision)
    if name != AUTO:
        reason = kinds[0].unavailable()
        if reason:
            raise BundleError(f"backend={name} cannot run here: {reason}.")
        return _load(kinds[0], bundle, options)
    refused: list[str] = []
    for kind in kinds:
        reason = kind.unavailable()
        if reason is None:
            try:
                return _load(kind, bundle, options)
            except BundleError as error:
                reason = str(error)
        refused.append(f"{kind.name}: {reason}")
        # A machine without a GPU is no surprise; what fails or is not installed may be one.
        expected = "cuda" in kind.devices and not cuda_driver().version
        level = logging.INFO if expected else logging.WARNING
        logger.log(level, "back end %s is passed over: %s", kind.name, reason)
    raise BundleError(f"no back end runs {bundle.path} here. " + " ".join(refused))


def _candidates(name: str, precision: str) -> list[BackendKind]:
    if name not in (AUTO, *BACKEND_NAMES):
        raise ConfigError(
            f"backend={name} is not known. Choose one of: auto, {', '.join(BACKEND_NAMES)}."
        )
    kinds = list(KINDS.values()) if name == AUTO else [KINDS[name]]
    if any(precision not in kind.precisions for kind in kinds):
        have = [kind.name for kind in KINDS.values() if precision in kind.precisions]
        raise ConfigError(
            f"precision={precision} is not one that backend={name} chooses"
            f"{'; it is float32 alone' if name == AUTO else ''}. "
            + (f"Those that have it: {', '.join(have)}." if have else "None has it.")
        )
    return kinds


def is_graft(bundle: Bundle) -> bool:
    """Whether it is of a grafted video model, which GRAFT_BACKENDS alone run."""
    return bundle.manifest.kind == GRAFT


def _load(kind: BackendKind, bundle: Bundle, options: BackendOptions) -> Backend:
    if is_graft(bundle):
        from loopdit.deploy.backends import graft_backend  # late: diffusers takes seconds

        backend = graft_backend.load(kind.name, bundle, options)
    else:
        backend = kind.load(bundle, options)
    require_witness(backend, bundle)
    return backend


def require_witness(backend: Backend, bundle: Bundle) -> None:
    """Raise BundleError where `backend` does not repeat the chunk that the trained policy made at
    export; of an export in progress, which has none yet, nothing is required."""
    witness = bundle.manifest.witness
    if witness is None:
        return
    told = bundle.manifest.told(next(iter(bundle.manifest.instructions), ""))
    observation, noise = witness_inputs(bundle.spec, bundle.horizon, told)
    actions = run_chunk(backend, observation, witness.loops, noise, witness.steps)[0]
    if backend.precision == FP32:
        error, tolerance, of = witness.error(actions), witness.tolerance, ""
    else:
        error, tolerance = _mean_share(actions, witness), _WITNESS_SHARES[backend.precision]
        of = " of their mean size"
    if error > tolerance:
        written = bundle.manifest.exported["versions"]["loopdit"]
        raise BundleError(
            f"{bundle.path}: back end {backend.name} computes actions that differ by {error:.2g}"
            f"{of} from the trained policy's (tolerance {tolerance:g}). The bundle was exported "
            f"by loopdit {written}, maybe with another model; export it again, or use another "
            f"backend= or precision=."
        )


def _mean_share(actions: np.ndarray, witness: Witness) -> float:
    """Mean error of `actions` (H, A) by the mean size of the witness's; not a number: infinite."""
    expected = np.array(witness.actions)
    share = np.abs(actions - expected).mean() / max(np.abs(expected).mean(), 1e-12)
    return float(np.nan_to_num(share, nan=np.inf))
