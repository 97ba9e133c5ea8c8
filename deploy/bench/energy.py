"""The processor's energy counters (RAPL), where the kernel lets us read them.

A counter covers its whole package: every core, and whatever else the machine was doing.
"""

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
# Intel and AMD alike: intel-rapl:0 is a package, intel-rapl:0:1 a part of it.
_PACKAGES = "intel-rapl:[0-9]"


class EnergyMeter:
    """Joules that all packages have used since `start`.

    `problem` says why there is no reading, None where there is one.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._packages = sorted(folder.glob(_PACKAGES))
        self.problem: str | None = None
        if not self._packages:
            self.problem = f"{folder} has no {_PACKAGES.partition(':')[0]} counters"
            return
        try:
            self._ranges = [_number(p / "max_energy_range_uj") for p in self._packages]
            self.start()
        except (OSError, ValueError) as error:
            self.problem = f"the counters in {folder} cannot be read ({error})"

    def start(self) -> None:
        """Count from now on."""
        if self.problem is None:
            self._began = self._read()

    def joules(self) -> float:
        """Since `start`; not a number where there is no reading. Counters may wrap once."""
        if self.problem is not None:
            return float("nan")
        used = (
            (now - began) % (most + 1)
            for now, began, most in zip(self._read(), self._began, self._ranges, strict=True)
        )
        return 1e-6 * sum(used)

    def _read(self) -> list[int]:
        return [_number(package / "energy_uj") for package in self._packages]


def _number(path: Path) -> int:
    return int(path.read_text())
