"""What has to be run for an experiment at a scale: each cell with each seed, and its hash.

The hash is of everything that decides a result: the study and its revision, its options with all
their defaults, and the seed. Results are found again by it, in whichever experiment they were made.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from itertools import product
from typing import Any, cast

from loopdit.command import settings_of
from loopdit.errors import ConfigError
from loopdit.eval.experiments.experiment import Experiment, merged
from loopdit.eval.experiments.studies.study import Study, study_named


@dataclass(frozen=True)
class Run:
    """One cell with one seed. `index`: of the cell among its experiment's. `options`: of its study,
    resolved, as plain JSON types."""

    experiment: str
    number: int | None
    scale: str
    index: int
    factors: Mapping[str, str]
    seed: int
    study: str
    options: Mapping[str, Any]
    config_hash: str

    @property
    def cell(self) -> str:
        """The levels as one word."""
        return cell_word(self.factors)


def cell_word(factors: Mapping[str, str]) -> str:
    """Levels as one word that a file may be named by; "all" where there are no factors."""
    words = [re.sub(r"[^A-Za-z0-9.]+", "_", level) for level in factors.values()]
    return "-".join(words) or "all"


def runs_of(
    experiment: Experiment, scale: str, seeds: int = 0, options: Mapping[str, Any] | None = None
) -> Iterator[Run]:
    """All runs, seed by seed, each over all cells: what is stopped early has compared the same.

    `seeds`: as many, in place of the scale's. `options` are laid over all others.
    Raises ConfigError for an option that the study has not.
    """
    if experiment.missing:
        return
    study = study_named(experiment.study)
    cells = list(experiment.cells())
    resolved = [
        plain(resolve(study, merged(experiment.cell_options(cell, scale), options or {})))
        for cell in cells
    ]
    count = seeds or experiment.scales[scale].seeds
    for seed, (index, cell) in product(range(count), enumerate(cells)):
        yield Run(
            experiment.name,
            experiment.number,
            scale,
            index,
            cell,
            seed,
            experiment.study,
            resolved[index],
            config_hash(study, resolved[index], seed),
        )


def resolve(study: Study, wanted: Mapping[str, Any]) -> Any:
    """The study's options as its dataclass, `wanted` laid over their defaults."""
    try:
        return settings_of(study.options, wanted)
    except ConfigError as error:
        raise ConfigError(f"study {study.name}: {error}") from error


def plain(options: Any) -> dict[str, Any]:
    """A dataclass as plain JSON types."""
    assert is_dataclass(options)
    assert not isinstance(options, type)
    return cast(dict[str, Any], json.loads(json.dumps(asdict(options))))


def config_hash(study: Study, options: Mapping[str, Any], seed: int) -> str:
    """Equal for runs whose result is the same, alone."""
    said = {"study": study.name, "revision": study.revision, "options": options, "seed": seed}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
