"""One experiment as its YAML declares it: the claim, the cells, and what is run in each.

configs/experiment/<name>.yaml is read into an `Experiment` and checked. A cell is one level of each
factor; a level sets options of the study that runs it (`studies`). Options come together in this
order, later ones winning: the experiment's own, the scale's, those of the cell's levels.

Knows neither what a study does nor results; `analysis` and `paper` are carried as they are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from itertools import product
from typing import Any, cast

import yaml

from loopdit.errors import ConfigError

SCALES = ("smoke", "cpu", "paper")
LOWER, HIGHER = "lower", "higher"

Options = Mapping[str, Any]
# Of a cell: the name of its level in each factor.
Cell = Mapping[str, str]

_REQUIRED = ("title", "claim")
_REQUIRED_TO_RUN = ("choices", "metric", "better", "scales", "study")
_OPTIONAL = (
    "number",
    "baseline_metric",
    "learned",
    "factors",
    "options",
    "missing",
    "analysis",
    "paper",
)
_FIELDS = (*_REQUIRED, *_REQUIRED_TO_RUN, *_OPTIONAL)


@dataclass(frozen=True)
class Scale:
    """How often and how long at one of SCALES: seeds a cell, and options that differ there."""

    seeds: int
    options: Options


@dataclass(frozen=True)
class Learned:
    """What tells that a model has learned anything: `metric` against `chance`, the metric of who
    says the same whatever it is shown, such as the constant predictor, `better` as an experiment's;
    or, where chance is nothing, `metric` above a number.
    """

    metric: str
    chance: str = ""
    better: str = LOWER
    above: float | None = None


@dataclass(frozen=True)
class Experiment:
    """What one YAML declares.

    number: in the paper's Table 4; None for one of ours. claim: what the paper says, or for ours
    what is asked. choices: what the paper leaves open, and what was chosen. metric: the name of the
    number that the claim is about, and `better` which way it improves; baseline_metric: the one to
    hold it against, such as the error of a constant. learned: each of these has to be beaten by
    some cell, or the comparison says nothing. factors: by factor and level the options that the
    level sets. missing: the paper has the number and nothing else.
    """

    name: str
    number: int | None
    title: str
    claim: str
    choices: tuple[str, ...]
    metric: str
    better: str
    baseline_metric: str | None
    learned: tuple[Learned, ...]
    factors: Mapping[str, Mapping[str, Options]]
    options: Options
    scales: Mapping[str, Scale]
    study: str
    missing: bool
    analysis: tuple[Mapping[str, Any], ...]
    paper: Mapping[str, Any]

    def cells(self) -> Iterator[Cell]:
        """Every combination of levels, the last factor varying fastest."""
        if self.missing:
            return
        for levels in product(*self.factors.values()):
            yield dict(zip(self.factors, levels, strict=True))

    def cell_options(self, cell: Cell, scale: str) -> dict[str, Any]:
        """What is set for a cell at a scale."""
        parts = [self.options, self.scales[scale].options]
        parts += [self.factors[factor][level] for factor, level in cell.items()]
        return merged(*parts)


def merged(*parts: Options) -> dict[str, Any]:
    """Nested mappings laid over one another, the last one on top."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = result.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                value = merged(cast(Options, below), cast(Options, value))
            result[key] = value
    return result


@cache
def experiments() -> Mapping[str, Experiment]:
    """All there are, by name, in the order of their files: the paper's by number, then ours."""
    folder = resources.files("loopdit.configs.experiment")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {
        (name := file.name.removesuffix(".yaml")): read(name, file.read_text("utf-8"))
        for file in files
    }


def named(word: str) -> Experiment:
    """By name, by number, or by the name without its number. Raises ConfigError with the nearest
    name where there is none."""
    known = experiments()
    for name, experiment in known.items():
        short = re.sub(r"^\d+_", "", name)
        if word in (name, short, str(experiment.number)):
            return experiment
    near = get_close_matches(word, [*known, *(re.sub(r"^\d+_", "", n) for n in known)], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no experiment is named {word!r}.{hint} There are: {', '.join(known)}.")


def read(name: str, text: str) -> Experiment:
    """The experiment of a YAML text. Raises ConfigError, which names the file and the field."""
    where = f"configs/experiment/{name}.yaml"
    try:
        found: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{where} must have fields; it has none.")
    fields = cast(dict[str, Any], found)
    for key in fields:
        if key not in _FIELDS:
            near = get_close_matches(key, _FIELDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{where} has an unknown field {key!r}.{hint} Fields are: {', '.join(_FIELDS)}."
            )
    missing = bool(fields.get("missing", False))
    for key in _REQUIRED + (() if missing else _REQUIRED_TO_RUN):
        if key not in fields:
            raise ConfigError(f"{where} lacks the field {key!r}.")
    if not missing and fields["better"] not in (LOWER, HIGHER):
        raise ConfigError(f"{where}: better={fields['better']} must be {LOWER} or {HIGHER}.")
    return Experiment(
        name=name,
        number=fields.get("number"),
        title=fields["title"],
        claim=" ".join(fields["claim"].split()),
        choices=tuple(" ".join(choice.split()) for choice in fields.get("choices", ())),
        metric=fields.get("metric", ""),
        better=fields.get("better", LOWER),
        baseline_metric=fields.get("baseline_metric"),
        learned=_learned(fields.get("learned", []), where),
        factors={
            factor: _levels(factor, levels, where)
            for factor, levels in fields.get("factors", {}).items()
        },
        options=fields.get("options", {}),
        scales={} if missing else _scales(fields["scales"], where),
        study=fields.get("study", ""),
        missing=missing,
        analysis=tuple(fields.get("analysis", ())),
        paper=fields.get("paper", {}),
    )


def _learned(found: Any, where: str) -> tuple[Learned, ...]:
    """A list of {metric, chance}, with `better: higher` where more is, or of {metric, above}."""
    try:
        listed = tuple(Learned(**entry) for entry in cast(Sequence[Mapping[str, Any]], found))
    except TypeError as error:
        raise ConfigError(f"{where}: learned must list {{metric, chance}}: {error}.") from error
    for one in listed:
        if bool(one.chance) == (one.above is not None):
            raise ConfigError(f"{where}: learned {one.metric} needs chance or above, and not both.")
        if one.better not in (LOWER, HIGHER):
            raise ConfigError(f"{where}: learned.better={one.better} must be {LOWER} or {HIGHER}.")
    return listed


def _levels(factor: str, levels: Any, where: str) -> Mapping[str, Options]:
    """A list gives values of the option that has the factor's name; a mapping says what each level
    sets."""
    if isinstance(levels, Mapping):
        return {str(name): sets or {} for name, sets in cast(dict[Any, Any], levels).items()}
    if isinstance(levels, Sequence) and not isinstance(levels, str) and levels:
        return {str(value): {factor: value} for value in cast(Sequence[Any], levels)}
    raise ConfigError(f"{where}: factor {factor!r} must list its levels; it is {levels!r}.")


def _scales(found: Mapping[str, Mapping[str, Any]], where: str) -> Mapping[str, Scale]:
    if sorted(found) != sorted(SCALES):
        raise ConfigError(f"{where}: scales must be {', '.join(SCALES)}; they are {list(found)}.")
    scales: dict[str, Scale] = {}
    for name in SCALES:
        options = dict(found[name])
        seeds = options.pop("seeds", 0)
        if not isinstance(seeds, int) or seeds < 1:
            raise ConfigError(f"{where}: scales.{name}.seeds={seeds} must be at least 1.")
        scales[name] = Scale(seeds, options)
    return scales
