"""The one door to environments for the commands: from `env=` to something that can be reset.

lift, push, ...        ours, in this process
metaworld/reach-v3     a public suite's, in this process or one of its own
tcp://HOST:PORT        whatever `loopdit.eval.env_server` serves there
"""

from typing import cast

from loopdit.envs.registry import ENV_NAMES, make_env
from loopdit.envs.suites.catalogue import SUITES
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment
from loopdit.eval.suite_env import is_suite_env, make_suite_env

DEFAULT_IMAGE_SIZE = 64


def open_env(
    name: str,
    image_size: int = DEFAULT_IMAGE_SIZE,
    rate_hz: float = 0.0,
    variation: str = "none",
) -> Environment:
    """The environment `name`, at `rate_hz` actions a second (0: its own), under `variation`.

    Raises ConfigError for an unknown name, or a rate or variation that it does not have;
    RenderingError where nothing renders; ServerError where its process does not answer.
    """
    require_known(name)
    if not is_suite_env(name):
        made = make_env(name, image_size=image_size, rate_hz=rate_hz, variation=variation)
        return cast(Environment, made)
    for option, value, own in (("rate_hz", rate_hz, 0.0), ("variation", variation, "none")):
        if value != own:
            raise ConfigError(
                f"{option}={value} is not there for env={name}: only loopdit's own environments "
                f"have it. Use {option}={own}."
            )
    return make_suite_env(name, image_size)


def require_known(name: str) -> None:
    """Raise ConfigError for a name of no environment and no suite; what a suite has, it knows."""
    if name in ENV_NAMES or is_suite_env(name):
        return
    suites = ", ".join(f"{prefix}/{suite.example}" for prefix, suite in SUITES.items())
    raise ConfigError(
        f"env={name} is unknown. The environments are: {', '.join(ENV_NAMES)}; and those of "
        f"suites, such as {suites}."
    )
