"""One thing that the paper prints, held against what follows from its other numbers."""

from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, cast

import yaml

from loopdit.eval.experiments.paper.rounding import Printed, Reach, reach
from loopdit.eval.statistics.t_test import Estimate


@dataclass(frozen=True)
class Check:
    """`recomputed`, and from `low` to `high` what it can be within the rounding of its inputs.

    kind: a printed number, or a sentence beside the number that decides it. holds: whether the
    printed number can be that, or the sentence is right. says: what was found where it is not.
    experiment: None for what is of the whole paper. what: the number of a sentence, in a word.
    """

    id: str
    kind: Literal["number", "claim"]
    experiment: int | None
    where: str
    printed: str
    recomputed: float
    low: float
    high: float
    holds: bool
    says: str = ""
    what: str = ""

    @classmethod
    def of_claim(
        cls,
        name: str,
        what: str,
        experiment: int | None,
        where: str,
        claim: str,
        recomputed: float,
        holds: bool,
        says: str,
    ) -> "Check":
        """A sentence of the paper beside the number that decides it; `says` is said if it does not
        hold."""
        text = "" if holds else says
        at = recomputed
        return cls(name, "claim", experiment, where, claim, at, at, at, bool(holds), text, what)

    @classmethod
    def of_number(
        cls,
        name: str,
        experiment: int | None,
        where: str,
        text: str,
        value: Printed,
        found: Reach,
        otherwise: str = "",
    ) -> "Check":
        """A printed number beside what it can be; `otherwise` is said if it cannot be that."""
        holds = value.may_be(found.low, found.high)
        says = "" if holds else otherwise or f"It is {found.value:.4g}."
        bounds = found.value, found.low, found.high
        return cls(name, "number", experiment, where, text, *bounds, holds, says)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@cache
def printed() -> dict[str, Any]:
    """printed.yaml."""
    folder = resources.files("loopdit.eval.experiments.paper")
    return cast(dict[str, Any], yaml.safe_load((folder / "printed.yaml").read_text("utf-8")))


def entry(path: str) -> tuple[str, Printed]:
    """("Table 3", its number) of "exp26.loops_F"."""
    found: Any = printed()
    for part in path.split("."):
        found = found[part]
    return str(found["where"]), Printed.of(found["value"], float(found.get("unit", 1)))


def number(path: str) -> Printed:
    """The number alone."""
    return entry(path)[1]


def numbers(path: str) -> list[Printed]:
    """Of an entry that prints several."""
    section, name = path.split(".")
    return [Printed.of(text) for text in printed()[section][name]["value"]]


def number_check(
    path: str, experiment: int | None, found: Reach, otherwise: str = "", text: str = ""
) -> Check:
    """The number printed at `path`, shown as `text`, beside `found`."""
    where, value = entry(path)
    return Check.of_number(path, experiment, where, text or value.text, value, found, otherwise)


def numbers_check(
    path: str, place: int, experiment: int | None, found: Reach, otherwise: str = ""
) -> Check:
    """The same for one of several that an entry prints."""
    section, name = path.split(".")
    where, value = str(printed()[section][name]["where"]), numbers(path)[place]
    return Check.of_number(
        f"{path}.{place}", experiment, where, value.text, value, found, otherwise
    )


def ratio_reach(over: str, under: str) -> Reach:
    """Of one printed number over another."""
    return reach(lambda values: float(values[0] / values[1]), [number(over), number(under)])


def estimate_dict(estimate: Estimate) -> dict[str, Any]:
    """An estimate as plain JSON types."""
    low, high = estimate.interval()
    return {
        "value": estimate.value,
        "interval": [low, high],
        "t": estimate.t(),
        "df": estimate.df,
        "p": estimate.p_value(),
    }
