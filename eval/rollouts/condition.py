"""What one measurement is taken under: everything that may differ between two compared numbers.

The policy, the environment and the seeds are not in it: all conditions of one evaluation share
them. Texts such as `delay` are read by the module that acts on them (`delays`, `faults`,
`depth`, `deploy.robot.executions`), which says what is wrong with an unknown one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from loopdit.errors import ConfigError


@dataclass(frozen=True)
class Condition:
    """One point of a comparison.

    loops: compute depth K, 0 for a policy without a dial, the most where depth is adaptive. steps:
    denoising steps, 0 its default. rate_hz: actions a second, 0 the environment's own. divide:
    control steps that each action of the policy is spread over.
    """

    loops: int
    steps: int
    delay: str = "0"
    execution: str = "aligned"
    execute_horizon: int = 8
    rate_hz: float = 0.0
    divide: int = 1
    variation: str = "none"
    fault: str = "none"
    adaptive: str = "none"

    def __post_init__(self) -> None:
        least = {"loops": 0, "steps": 0, "execute_horizon": 1, "rate_hz": 0, "divide": 1}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {value}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Condition":
        """Read what `to_dict` wrote; what this version does not know is left out."""
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})

    @property
    def text(self) -> str:
        """A few words for people: depth and steps, and what is not at its default."""
        words = [
            f"K={self.loops}" if self.loops else "",
            f"adaptive {self.adaptive}" if self.adaptive != Condition.adaptive else "",
            f"{self.steps} steps" if self.steps else "",
            f"delay {self.delay}" if self.delay != Condition.delay else "",
            self.execution if self.execution != Condition.execution else "",
            f"executing {self.execute_horizon}"
            if self.execute_horizon != Condition.execute_horizon
            else "",
            f"{self.rate_hz:g} Hz" if self.rate_hz else "",
            f"each action in {self.divide}" if self.divide != Condition.divide else "",
            self.variation if self.variation != Condition.variation else "",
            f"fault {self.fault}" if self.fault != Condition.fault else "",
        ]
        return ", ".join(word for word in words if word) or "as it comes"
