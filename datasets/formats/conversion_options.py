"""Whether a conversion's source, target and options can go together, before anything is read."""

from pathlib import Path

from loopdit.datasets.formats.importing import AUTO
from loopdit.datasets.frame_codecs import RAW
from loopdit.errors import ConfigError, StoreError

LEROBOT = "lerobot"  # the only format whose frames have a choice of codecs
STORE = "store"  # the format's name of our own episode stores


def check_options(to: str, frames: str, codec: str) -> None:
    """Raise ConfigError for an option of another kind of target."""
    if to not in ("", STORE) and frames != RAW:
        raise ConfigError(
            f"frames={frames} says how a store keeps frames, and to={to} is none. Leave it out."
        )
    if codec != AUTO and to != LEROBOT:
        raise ConfigError(
            f"codec={codec} says how LeRobot's frames are encoded: give it with to={LEROBOT}."
        )


def check_target(source: str | Path, target: str | Path) -> None:
    """Raise where what is made would lie in what it is made of, or in its place."""
    if "://" in str(source) or "://" in str(target):
        return
    read, made = Path(source).resolve(), Path(target).resolve()
    if made == read:
        raise StoreError(f"cannot convert {source} into itself. Choose another path.")
    if made.is_relative_to(read):
        raise StoreError(
            f"cannot write {target}: it is inside of {source}, which is being read. Choose a path "
            f"beside it."
        )
