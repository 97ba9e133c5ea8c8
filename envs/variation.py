"""What may differ from one episode to the next beyond the task itself, as text.

"lights+camera:0.5" turns on the axis `lights` fully and `camera` at half strength; "all" turns on
every axis, "none" leaves the scene as its file has it. This module is the text, and what a strength
means, without MuJoCo. What an axis does is in `appearance`, `dynamics` and `distractors`;
`randomizer` joins them.
"""

import math

import numpy as np

from loopdit.errors import ConfigError

# In the order in which they are applied.
AXES = ("lights", "textures", "camera", "friction", "mass", "distractors")
NONE, ALL = "none", "all"
FORMS = f"{', '.join((NONE, *AXES, ALL))}, each at half strength with :0.5, several joined by +"
_CHOICES = f"The axes are: {', '.join(AXES)}, {ALL}; join them by +, or use {NONE}."


def parse_variation(text: str) -> dict[str, float]:
    """Strength in (0, 1] of each axis that is on, in the order of `AXES`: "none" -> {}.

    Raises ConfigError for an unknown axis, one that is named twice, or another strength.
    """
    if text == NONE:
        return {}
    strengths: dict[str, float] = {}
    for part in text.split("+"):
        axis, colon, number = part.partition(":")
        strength = _strength(text, number) if colon else 1.0
        if axis != ALL and axis not in AXES:
            raise ConfigError(f"variation={text}: there is no axis {axis!r}. {_CHOICES}")
        for name in AXES if axis == ALL else (axis,):
            if name in strengths:
                raise ConfigError(f"variation={text} names {name} twice. {_CHOICES}")
            strengths[name] = strength
    return {axis: strengths[axis] for axis in AXES if axis in strengths}


def varied_factor(rng: np.random.Generator, limits: tuple[float, float], strength: float) -> float:
    """A factor between the `limits`, uniform in its logarithm, nearer to 1 for less strength."""
    return math.exp(strength * rng.uniform(math.log(limits[0]), math.log(limits[1])))


def _strength(text: str, number: str) -> float:
    try:
        strength = float(number)
    except ValueError:
        strength = 0.0
    if not 0 < strength <= 1:
        raise ConfigError(
            f"variation={text}: the strength {number!r} is not a number above 0 and up to 1, "
            f"as in lights:0.5. {_CHOICES}"
        )
    return strength
