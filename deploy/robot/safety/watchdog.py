"""When a robot must stop: nothing new from the policy, or somebody says so. Latched until a reset.

Pure: counted in control steps.
"""


class Watchdog:
    """Stops after `periods` control steps on end without a fresh action of the policy.

    It is armed by the first fresh action: a robot that has not begun yet stands still anyway.
    """

    def __init__(self, periods: int) -> None:
        self._periods = periods
        self.reset()

    @property
    def stopped(self) -> bool:
        """Latched."""
        return self._stopped

    def step(self, fresh: bool) -> bool:
        """Whether this control step has a fresh action -> whether the robot must stop."""
        if fresh:
            self._armed, self._without = True, 0
        elif self._armed:
            self._without += 1
        self._stopped = self._stopped or self._without >= self._periods
        return self._stopped

    def reset(self) -> None:
        """Somebody has looked: begin anew."""
        self._armed, self._stopped, self._without = False, False, 0


class EmergencyStop:
    """Pressed until it is released. `reason` says by whom or why."""

    def __init__(self) -> None:
        self.pressed = False
        self.reason = ""

    def press(self, reason: str) -> None:
        """The first reason is kept."""
        if not self.pressed:
            self.pressed, self.reason = True, reason

    def release(self) -> None:
        """It may move again."""
        self.pressed, self.reason = False, ""
