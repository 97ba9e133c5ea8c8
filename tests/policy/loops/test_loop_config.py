from typing import Any

import pytest

from loopdit.errors import ConfigError
from loopdit.policy.loops.config import LoopConfig


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loops": 0}, "loops=0"),
        ({"scope": "model"}, "scope=model is unknown. Use block or stack"),
        ({"init": "zero"}, "init=zero is unknown. Use identity or paper"),
        ({"exits": "all"}, "Use none, global or token"),
        ({"halting": "global"}, "halting=global is unknown"),
        ({"ponder": -0.1}, "ponder=-0.1"),
        ({"sharpest": 0.5}, "sharpest=0.5"),
        ({"sharpest": float("nan")}, "sharpest=nan"),
        ({"halt_at": 0.0}, "halt_at=0.0"),
        ({"exits": "token", "halting": "token"}, "exclude each other"),
        ({"ponder": 0.1}, "ponder=0.1 does nothing without exits=global or token, or halting"),
        ({"halt_at": 0.7, "exits": "token"}, "halt_at=0.7 does nothing without halting=token"),
    ],
)
def test_loops_that_cannot_work_are_refused_with_the_remedy(options: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        LoopConfig(**options)
