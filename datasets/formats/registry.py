"""The formats by name. A module, and what it builds on, is imported only when it is used."""

from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import cast

from loopdit.datasets.formats.foreign import Format
from loopdit.errors import ConfigError, StoreError

# In the order in which a path is tried: the ones that are surest of themselves first.
FORMATS = ("rlds", "lerobot", "minari", "robomimic", "diffusion_policy")
_LOOKED_AT = 20  # files and folders at each depth


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
    missing: list[str] = []
    found = _recognized(path, missing)
    if found is not None:
        return found
    inside = next(
        (f"{item} looks like {module.NAME}" for item, module in _inside(path)), "none in it does"
    )
    raise StoreError(
        f"{path} looks like none of the formats {', '.join(FORMATS)}"
        + (f"; {inside}" if path.is_dir() else "")
        + ". Point at the data set's own file or folder, or name its format with format=."
        + "".join(f" ({reason})" for reason in missing)
    )


def _recognized(path: Path, missing: list[str]) -> Format | None:
    """The first format that says so. Why one could not be asked is added to `missing`."""
    for name in FORMATS:
        try:
            module = format_named(name)
            if module.recognizes(path):
                return module
        except ConfigError as error:
            missing.append(str(error))
    return None


def _inside(path: Path) -> Iterator[tuple[Path, Format]]:
    """What lies up to three folders below, as data sets do in a cache or a namespace."""
    for depth in ("*", "*/*", "*/*/*"):
        for item in islice(sorted(path.glob(depth)), _LOOKED_AT):
            module = _recognized(item, [])
            if module is not None:
                yield item, module
