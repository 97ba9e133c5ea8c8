"""One question of an experiment's `analysis:`, read from its YAML and checked.

    - id: total                 # a name within the experiment
      kind: ratio               # see KINDS
      metric: total_loss        # default: the experiment's
      of: {loops: "4"}          # cells: a level, or a list of levels, of some factors
      against: {loops: "1"}
      claimed: 1.13             # the paper's number
      least: 1.05               # what would count as the claim, where that is not `claimed`

Knows no results. What each kind computes: `comparisons`, `trends`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from loopdit.errors import ConfigError
from loopdit.eval.experiments.experiment import LOWER, Experiment

Selection = Mapping[str, Sequence[str]]

_COMPARED = {"of", "against", "at", "against_metric"}
_TWICE = {"than", "than_metric"}
_EFFECT = {"claimed", "least"}
# By kind: the fields that it needs, and those that it may have.
KINDS: Mapping[str, tuple[set[str], set[str]]] = {
    # How many times better one is than the other, a seed's pair at a time; above 1 is better.
    "ratio": ({"of"}, _COMPARED | _TWICE | _EFFECT),
    # Metric of one less that of the other, in its own unit: of a seed's pair, or of two groups.
    "paired": ({"of"}, _COMPARED | _TWICE | _EFFECT),
    "welch": ({"of"}, _COMPARED | _EFFECT),
    # No difference beyond `margin`: of a ratio, or with `linear` of a difference, or where there
    # is no `against` of the metric itself from 0; of each pair of levels where `factor` is given.
    "equivalence": (
        {"margin"},
        _COMPARED | _TWICE | {"factor", "linear", "claimed"},
    ),
    # Not worse by more than `margin`: of a ratio, or with `linear` of a difference.
    "no_worse": ({"of", "margin"}, _COMPARED | _TWICE | {"linear", "claimed"}),
    # The metric itself is above, or below, a value: of the mean over the cells of `of`.
    "threshold": (set(), {"of", "at", "above", "below"} | _EFFECT),
    # The metric rises (or falls) with a factor's numbers, or over `metrics` in their order; of a
    # ratio where `of` and `against` say of which.
    "spearman": ({"claimed"}, {"factor", "metrics", "least", *_COMPARED}),
    # metric = a n^-alpha over a factor's numbers.
    "power_law": ({"factor", "claimed"}, {"at", "least"}),
    # An effect of two factors or of their interaction is there, or with `margin` (of Cohen's f) is
    # not.
    "anova2": ({"factors", "effect"}, {"claimed", "margin", "at"}),
    # One level of a factor is better than every other: by a ratio, or with `linear` a difference.
    "best": ({"factor", "level"}, {"at", "linear"}),
    # Standard deviation over seeds, of one over that of the other.
    "spread": ({"of"}, _COMPARED | _EFFECT),
}
_ALWAYS = {"id", "kind", "metric", "better", "beside", "says"}


@dataclass(frozen=True)
class Question:
    """See the module. `beside`: answered, but no part of the verdict. `says`: what is asked, for
    people."""

    id: str
    kind: str
    metric: str
    better: str
    says: str = ""
    beside: bool = False
    of: Selection = field(default_factory=dict[str, Sequence[str]])
    against: Selection | None = None
    at: Selection = field(default_factory=dict[str, Sequence[str]])
    than: Selection | None = None
    against_metric: str = ""
    than_metric: str = ""
    factor: str = ""
    factors: Sequence[str] = ()
    metrics: Sequence[str] = ()
    level: str = ""
    effect: str = ""
    linear: bool = False
    margin: float | None = None
    above: float | None = None
    below: float | None = None
    claimed: float | None = None
    least: float | None = None

    @property
    def of_ratio(self) -> bool:
        """Whether what is to be equal are ratios, and not numbers with a unit."""
        compared = self.against is not None or bool(self.against_metric or self.factor)
        return compared and not self.linear

    def words(self) -> str:
        """What is measured: "total_loss: loops=4 against loops=1, at hops=3"."""
        of = selection_text(self.of)
        text = f"{self.metric}: {of}" if of else self.metric
        if self.against is not None or self.against_metric:
            text += f" against {selection_text(self.against or {}) or self.against_metric}"
        if self.at:
            text += f", at {selection_text(self.at)}"
        if self.than is not None or self.than_metric:
            text += f", over that at {selection_text(self.than or {}) or self.than_metric}"
        return text

    @property
    def needed(self) -> float | None:
        """The smallest effect that counts as the claim."""
        return self.claimed if self.least is None else self.least


def questions_of(experiment: Experiment) -> list[Question]:
    """Its `analysis:`. Raises ConfigError, which names the file and the question."""
    found = [_question(experiment, entry, place) for place, entry in enumerate(experiment.analysis)]
    names = [question.id for question in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"{_where(experiment)}: two questions of analysis have one id: {names}.")
    return found


def selection_text(selection: Selection) -> str:
    """ "loops=4, hops=1 or 2"."""
    return ", ".join(f"{factor}={' or '.join(levels)}" for factor, levels in selection.items())


def _where(experiment: Experiment) -> str:
    return f"configs/experiment/{experiment.name}.yaml"


def _question(experiment: Experiment, entry: Mapping[str, Any], place: int) -> Question:
    where = f"{_where(experiment)}: analysis {entry.get('id', place)}"
    kind = str(entry.get("kind"))
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind={kind} is unknown. Use {', '.join(KINDS)}.")
    needs, may = KINDS[kind]
    for name in ("id", *sorted(needs)):
        if name not in entry:
            raise ConfigError(f"{where}: {kind} needs {name!r}.")
    unknown = set(entry) - _ALWAYS - needs - may
    if unknown:
        allowed = ", ".join(sorted(_ALWAYS | needs | may))
        raise ConfigError(f"{where}: {kind} has no field {sorted(unknown)[0]!r}. It has {allowed}.")
    values: dict[str, Any] = {"metric": experiment.metric, "better": experiment.better, **entry}
    for name in ("of", "against", "at", "than"):
        if name in values:
            values[name] = _selection(experiment, values[name], f"{where}.{name}")
    for name in ("factor", "factors"):
        given = [values[name]] if name == "factor" and name in values else values.get(name, [])
        for factor in cast(Sequence[str], given):
            _require_factor(experiment, factor, where)
    if "level" in values:
        values["level"] = str(values["level"])
        _selection(experiment, {values["factor"]: values["level"]}, f"{where}.level")
    if "says" in values:
        values["says"] = " ".join(str(values["says"]).split())
    question = Question(**{key: values[key] for key in values if key in _FIELDS})
    _require_sense(question, where)
    return question


_FIELDS = {entry.name for entry in fields(Question)}


def _selection(experiment: Experiment, given: Any, where: str) -> Selection:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} must be {{factor: level}}; it is {given!r}.")
    found: dict[str, Sequence[str]] = {}
    for factor, levels in cast(Mapping[str, Any], given).items():
        _require_factor(experiment, factor, where)
        listed = [str(one) for one in _as_list(levels)]
        known = experiment.factors[factor]
        for level in listed:
            if level not in known:
                raise ConfigError(
                    f"{where}: {factor} has no level {level!r}. It has {', '.join(known)}."
                )
        found[factor] = listed
    return found


def _as_list(levels: Any) -> list[Any]:
    return cast(list[Any], levels) if isinstance(levels, list) else [levels]


def _require_factor(experiment: Experiment, factor: str, where: str) -> None:
    if factor not in experiment.factors:
        known = ", ".join(experiment.factors) or "none"
        raise ConfigError(f"{where}: there is no factor {factor!r}. Its factors are: {known}.")


def _require_sense(question: Question, where: str) -> None:
    """What the kinds need beyond names."""
    needed = question.needed
    directed = question.kind in ("ratio", "paired", "welch", "spread", "spearman", "power_law")
    null = 1.0 if question.kind in ("ratio", "spread") else 0.0
    if directed and (needed is None or needed == null):
        raise ConfigError(f"{where}: {question.kind} needs claimed or least, other than {null:g}.")
    if question.kind in ("ratio", "spread") and needed is not None and needed <= 0:
        raise ConfigError(f"{where}: {needed:g} is no ratio: it must be above 0.")
    has_other = question.against is not None or bool(question.against_metric)
    if question.kind in ("ratio", "paired", "welch", "no_worse", "spread") and not has_other:
        raise ConfigError(f"{where}: {question.kind} needs against, or against_metric.")
    if question.kind == "threshold" and (question.above is None) == (question.below is None):
        raise ConfigError(f"{where}: threshold needs above or below, and not both.")
    if question.kind == "spearman" and bool(question.factor) == bool(question.metrics):
        raise ConfigError(f"{where}: spearman needs factor or metrics, and not both.")
    if question.kind == "anova2":
        if len(question.factors) != 2 or question.effect not in (*question.factors, "interaction"):
            raise ConfigError(
                f"{where}: anova2 needs two factors, and effect: one of them, or interaction."
            )
        if (question.margin is None) == (question.claimed is None):
            raise ConfigError(f"{where}: anova2 needs claimed or margin, and not both.")
    if question.margin is not None and not question.margin > 0:
        raise ConfigError(f"{where}: margin={question.margin:g} must be above 0.")
    is_ratio = question.kind in ("equivalence", "no_worse") and question.of_ratio
    if is_ratio and question.margin is not None and question.margin <= 1:
        raise ConfigError(f"{where}: margin={question.margin:g} of a ratio must be above 1.")


def improves_downwards(question: Question) -> bool:
    """Whether less of its metric is better."""
    return question.better == LOWER
