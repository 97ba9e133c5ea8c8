"""The options of `policy-export`, and what can be said of them before anything is opened."""

from collections.abc import Mapping
from dataclasses import dataclass

from loopdit.command import option
from loopdit.deploy.bundle.manifest import BF16, FP16, FP32, INT8, PRECISIONS
from loopdit.errors import ConfigError
from loopdit.policy.looped_policy import DEFAULT_STEPS


@dataclass(frozen=True)
class ExportConfig:
    """What `policy-export` is told."""

    checkpoint: str = option("", "folder that policy-train wrote (required)")
    out: str = option("outputs/bundle", "folder to write the bundle to, or a file BUNDLE.zip")
    loops: list[int] = option([], "each K to export; empty: 1 up to the checkpoint's deepest")
    default_loops: int = option(0, "the K to serve when nobody chooses; 0: the deepest exported")
    loop_graphs: bool = option(True, "write graphs with K as an input, too")
    precision: list[str] = option(
        [FP32],
        f"graphs to write: {', '.join(PRECISIONS)} (of weights alone); {FP32} always is",
    )
    steps: int = option(DEFAULT_STEPS, "denoising steps to run when nobody chooses")
    temperature: float | None = option(
        None,
        "spread of the starting noise: 0 best guess, 1 a fair draw; empty: the objective's own",
    )
    tolerance: float = option(1e-4, "largest difference from the reference, raw action units")
    # On `lift`, K = 4, 16 recorded observations, starting noise of spread 1: 0.02, 0.07 and 0.18,
    # all of the gripper, which is 1 wide (docs/bundle.md).
    tolerance_fp16: float = option(0.05, "the same for fp16")
    tolerance_bf16: float = option(0.2, "the same for bf16")
    tolerance_int8: float = option(0.5, "the same for int8")
    data: str = option("", "episode store whose observations to compare on; empty: synthetic ones")
    observations: int = option(16, "how many observations to compare on")
    repetitions: int = option(30, "timed chunks per K for the manifest's latency table; 0: none")
    seed: int = option(0, "seed of the observations and the noise to compare on")
    overwrite: bool = option(False, "replace the bundle that out= holds")

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigError("checkpoint= is missing: name the folder that policy-train wrote.")
        if not self.out:
            raise ConfigError("out= is empty: name the folder to write the bundle to.")
        unknown = [name for name in self.precision if name not in PRECISIONS]
        if unknown:
            raise ConfigError(
                f"precision={self.precision} has {unknown[0]!r}. Choose from: "
                f"{', '.join(PRECISIONS)}."
            )
        for name, low in (("steps", 1), ("observations", 1), ("repetitions", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {low}.")
        for precision, tolerance in self.tolerances.items():
            if not tolerance >= 0:
                name = tolerance_option(precision)
                raise ConfigError(f"{name}={tolerance} must be 0 or more.")
        if self.temperature is not None and not 0 <= self.temperature <= 1:
            raise ConfigError(f"temperature={self.temperature} must be from 0 to 1.")

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those to write, fp32 first, each once."""
        return tuple(name for name in PRECISIONS if name == FP32 or name in self.precision)

    @property
    def tolerances(self) -> Mapping[str, float]:
        """Largest difference from the reference for each precision, raw action units."""
        return {
            FP32: self.tolerance,
            FP16: self.tolerance_fp16,
            BF16: self.tolerance_bf16,
            INT8: self.tolerance_int8,
        }


def tolerance_option(precision: str) -> str:
    """What the option is called that says how much a precision may be off by."""
    return "tolerance" if precision == FP32 else f"tolerance_{precision}"
