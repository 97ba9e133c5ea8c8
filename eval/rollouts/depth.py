"""How deep each chunk is computed: at the K of its condition, or as deep as it needs up to that.

none           K loops, always
calibrated     by the threshold that is kept beside the policy's weights
chunk:0.002    by this threshold on the change of the predicted chunk
state:0.05     by this one on the change of what the loops make of the observation
"""

from loopdit.errors import ConfigError
from loopdit.policy.stopping_rule import MEASURES, StoppingRule

FIXED, CALIBRATED = "none", "calibrated"
FORMS = f"{FIXED}, {CALIBRATED}, {', '.join(f'{name}:THRESHOLD' for name in MEASURES)}"


def parse_adaptive(text: str) -> StoppingRule | None:
    """The rule that `text` states; None where it states none itself: FIXED and CALIBRATED.

    Raises ConfigError for anything else.
    """
    if text in (FIXED, CALIBRATED):
        return None
    measure, colon, number = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return StoppingRule(float(number), measure)
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"adaptive={text} is none of: {FORMS}.") from error
