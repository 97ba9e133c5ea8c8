"""Other stacks' names for what is observed here: which key of theirs is which tensor of ours."""

from collections.abc import Mapping

from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, PolicySpec
from loopdit.errors import ConfigError

INSTRUCTION = "instruction"
# Our names, and what the LIBERO policies of openpi call the same; what is in neither this nor the
# option keeps its name.
OPENPI_KEYS = {
    f"{IMAGE_PREFIX}front": "observation/image",
    f"{IMAGE_PREFIX}agentview": "observation/image",
    f"{IMAGE_PREFIX}wrist": "observation/wrist_image",
    f"{IMAGE_PREFIX}eye_in_hand": "observation/wrist_image",
    PROPRIO: "observation/state",
    INSTRUCTION: "prompt",
}


def parse_keys(text: str, option: str = "openpi_keys") -> dict[str, str]:
    """ "images.front=observation/image,instruction=prompt" -> from our names to theirs.

    Raises ConfigError.
    """
    keys: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        ours, _, theirs = pair.partition("=")
        if not (ours and theirs):
            raise ConfigError(
                f"{option}={text}: {pair!r} is not OURS=THEIRS, "
                f"such as images.front=observation/image."
            )
        keys[ours] = theirs
    return keys


def keys_for(
    spec: PolicySpec,
    given: Mapping[str, str],
    default: Mapping[str, str] = OPENPI_KEYS,
    option: str = "openpi_keys",
) -> dict[str, str]:
    """Their key of each observation of `spec` and of the instruction: as `given`, or as in
    `default`, or the same.

    Raises ConfigError where `given` names what is not there, or two go by one key.
    """
    ours = [*(tensor.name for tensor in spec.observations), INSTRUCTION]
    for name in given:
        if name not in ours:
            raise ConfigError(
                f"{option} names {name!r}, which is not observed here. It is: {', '.join(ours)}."
            )
    chosen: dict[str, str] = {}
    for name in ours:
        key = given.get(name, default.get(name, name))
        if key in chosen.values():
            other = next(n for n in chosen if chosen[n] == key)
            raise ConfigError(
                f"{other} and {name} would both be {key!r}. Set {option}={name}=... to what the "
                "other side calls it."
            )
        chosen[name] = key
    return chosen
