"""`policy-serve keys`: key pairs for a server and its clients, in files of their owner alone.

policy-serve keys out=keys                     keys/server.key and keys/server.key_secret
policy-serve keys out=keys/clients name=arm    a client's: its secret moves to the robot
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from loopdit.command import Command, option
from loopdit.deploy.security.curve import PUBLIC_SUFFIX, SECRET_SUFFIX, CurveKeys, new_keys
from loopdit.errors import ConfigError
from loopdit.subcommand import run_subcommand

COMMAND = Command(
    name="policy-serve keys",
    folder="serve_keys",
    summary="make a pair of CURVE keys, with which a server and its clients know each other.",
    examples=(
        "policy-serve keys out=keys",
        "policy-serve keys out=keys/clients name=left-arm",
        "policy-serve address=tcp://0.0.0.0:5555 curve.keys=keys/server.key_secret "
        "curve.clients=keys/clients",
    ),
)


@dataclass(frozen=True)
class KeysConfig:
    """The options of `policy-serve keys`."""

    out: str = option("???", "folder to write the two files to")
    name: str = option("server", "whose keys: the files are NAME.key and NAME.key_secret")

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name):
            raise ConfigError(
                f"name={self.name} has to be a file's name of letters, digits, '-', '_' and '.'."
            )


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """The files of a new pair: see `write_keys`."""
    return write_keys(folder, name, new_keys())


def write_keys(folder: Path, name: str, keys: CurveKeys) -> tuple[Path, Path]:
    """The files of a pair, public and secret: the folder is 0700 and the secret 0600 from the
    moment they are there. Raises ConfigError where there are such keys already, or no place."""
    secret_file = folder / f"{name}{SECRET_SUFFIX}"
    # The secret first: a public key without one would be of no use.
    _write(secret_file, _certificate(keys.public, keys.secret), 0o600)
    return write_public_key(folder, name, keys.public), secret_file


def write_public_key(folder: Path, name: str, public: bytes) -> Path:
    """The file of a public key, to be given away. Raises as `write_keys`."""
    path = folder / f"{name}{PUBLIC_SUFFIX}"
    _write(path, _certificate(public), 0o644)
    return path


def _certificate(public: bytes, secret: bytes | None = None) -> str:
    lines = ["metadata", "curve", f'    public-key = "{public.decode()}"']
    if secret is not None:
        lines.append(f'    secret-key = "{secret.decode()}"')
    return "\n".join(lines) + "\n"


def _write(path: Path, content: str, mode: int) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "w") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigError(
            f"there is {error.filename} already, and whoever knows it would be locked out. Choose "
            "another name= or out=."
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot write keys to out={path.parent}: {error.strerror}.") from error


def _run(config: KeysConfig) -> None:
    public_file, secret_file = make_keys(Path(config.out), config.name)
    console = Console()
    console.print(f"Wrote {public_file} (give it to the other side)", soft_wrap=True)
    console.print(f"Wrote {secret_file} (its owner's alone)", soft_wrap=True)


def main(arguments: Sequence[str]) -> None:
    """`policy-serve keys ...`"""
    run_subcommand(COMMAND, KeysConfig, _run, arguments, places=("out",))
