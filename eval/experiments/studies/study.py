"""What a study is: a module of this package that runs a cell of an experiment.

A study has `Options`, a frozen dataclass of what can be set; `run(options, seed, device)`, which
returns an Outcome that follows from its arguments alone; and REVISION, which is raised whenever
`run` would give another result for the same options, so that stored results are not taken for it.
"""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import torch

from loopdit.errors import ConfigError, LoopditError
from loopdit.eval.experiments import studies


class NotFinite(LoopditError):
    """A training, or what was measured of it, is no number any more."""


@dataclass(frozen=True)
class Outcome:
    """Numbers by name; columns of equal length by name, or None; trainable parameters."""

    metrics: Mapping[str, float]
    curve: Mapping[str, Sequence[float]] | None
    parameters: int


@dataclass(frozen=True)
class Study:
    """A study by its name."""

    name: str
    options: type[Any]
    revision: int
    run: Callable[[Any, int, torch.device], Outcome]


def study_names() -> list[str]:
    """Of all there are."""
    found = (module.name for module in pkgutil.iter_modules(studies.__path__))
    return [name for name in found if name != "study"]


def study_named(name: str) -> Study:
    """Raises ConfigError with the nearest name where there is none."""
    known = study_names()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"no study is named {name!r}.{hint} There are: {', '.join(known)}.")
    module: Any = import_module(f"{studies.__name__}.{name}")
    return Study(name, module.Options, module.REVISION, module.run)
