"""The formats by name. A module, and what it builds on, is imported only when it is used."""

from importlib import import_module
from pathlib import Path
from typing import cast

from loopdit.datasets.formats.foreign import Format
from loopdit.errors import ConfigError, StoreError

# In the order in which a path is tried: the ones that are surest of themselves first.
FORMATS = ("rlds", "lerobot", "minari", "robomimic", "diffusion_policy")


def format_named(name: str) -> Format:
    """The format's module. Raises ConfigError for a name that is none or a package it lacks."""
    if name not in FORMATS:
        raise ConfigError(f"format={name} is unknown. Choose one of: {', '.join(FORMATS)}.")
    try:
        return cast(Format, import_module(f"loopdit.datasets.formats.{name}"))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"format={name} needs the package {error.name}, which is not installed. "
            f"Install it with: pip install 'loopdit[data]'."
        ) from error


def recognized_format(path: Path) -> Format:
    """The format of the file or folder, by its content. Raises StoreError for a path that is
    missing or looks like none of them."""
    if not path.exists():
        raise StoreError(f"there is nothing at {path}. Check the path.")
    missing: list[str] = []
    for name in FORMATS:
        try:
            module = format_named(name)
            if module.recognizes(path):
                return module
        except ConfigError as error:
            missing.append(str(error))
    raise StoreError(
        f"{path} looks like none of the formats {', '.join(FORMATS)}. "
        f"Point at the data set's own file or folder, or name its format with format=."
        + "".join(f" ({reason})" for reason in missing)
    )
