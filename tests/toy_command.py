"""A small command for test_command.py, which runs it in a process and within its own.

Its YAML lies outside the package: `python toy_command.py FOLDER ARGUMENT...` finds it in FOLDER.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass

import loopdit.configs
from loopdit.command import Command, option, run_command
from loopdit.errors import ConfigError, ServerError


@dataclass(frozen=True)
class Model:
    width: int = option(64, "the width of a token")
    names: list[str] = option(["a", "b"], "two names")

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"model.width={self.width} is odd. Use {self.width + 1}.")


@dataclass(frozen=True)
class Config:
    episodes: int = option(50, "how many episodes to play")
    loops: list[int] = option([1, 2, 3], "loop counts")
    seed: int | None = option(None, "first seed; null draws one")
    rate: float = option(0.5, "learning rate")
    append: bool = option(False, "continue what is there")
    out: str = option("", "where results go")
    model: Model = option(Model(width=32), "the model")

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes={self.episodes} is below 1. Ask for at least one.")


@dataclass(frozen=True)
class Required:
    store: str = option("???", "what to read")


def play(config: Config) -> None:
    if config.out == "refused":
        raise ServerError("the server at tcp://x refused.\n  Start it first.")
    if config.out == "bug":
        raise RuntimeError("a bug of ours")
    if config.out == "forever":
        sys.stdout.write("started\n")
        sys.stdout.flush()
        time.sleep(60)
    while config.out == "endless":
        sys.stdout.write("more\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps({**asdict(config), "argv": sys.argv[1:]}) + "\n")


def read(config: Required) -> None:
    sys.stdout.write(f"{config.store}\n")


def main() -> None:
    examples = ["policy-toy episodes=5"]
    run_command(Command("policy-toy", "toy", "plays with toys.", examples), Config, play)


def main_required() -> None:
    run_command(Command("policy-toy", "toy", "needs a store.", []), Required, read)


if __name__ == "__main__":
    loopdit.configs.__path__.append(sys.argv.pop(1))
    main()
