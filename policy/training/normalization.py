"""The options of normalisation, and how a policy's normaliser is made of them.

A trainer calls it once, before it copies the policy for its weight average:

    statistics = compute_statistics(...)  # of the actions as they are trained on, filters applied
    fit_normalizer(policy, statistics, config.normalize)

Outputs are clipped to the spec's action limits whatever is chosen here. A resumed run reads the
numbers from its checkpoint; `normalize` must then be as before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from loopdit.command import option
from loopdit.datasets.spec import PROPRIO, PolicySpec
from loopdit.datasets.statistics import VectorStatistics
from loopdit.errors import ConfigError
from loopdit.policy.normalizer import MEAN_STD, MODES, Normalizer


@dataclass(frozen=True)
class NormalizeConfig:
    """What 0 and 1 mean to the model, for each vector."""

    action: str = option(
        MEAN_STD,
        "mean_std, min_max (extremes to -1 and 1), quantile (first and last percentile to -1 and "
        "1, clipped there) or none",
    )
    proprio: str = option(MEAN_STD, "the same for proprioception")
    keep: list[str] = option(
        [], "labels of action or proprio elements left in raw units, as [gripper]"
    )

    def __post_init__(self) -> None:
        for name in ("action", PROPRIO):
            if getattr(self, name) not in MODES:
                raise ConfigError(
                    f"normalize.{name}={getattr(self, name)} is unknown. Use {', '.join(MODES)}."
                )


class Normalising(Protocol):
    """A policy, as far as it normalises."""

    spec: PolicySpec
    normalizer: Normalizer


def fit_normalizer(
    policy: Normalising, statistics: Mapping[str, VectorStatistics], config: NormalizeConfig
) -> None:
    """Set the policy's normaliser from a data set's statistics, by "action" and "proprio".

    Raises ConfigError for a label in `keep` that neither the actions nor the proprio have.
    """
    labels = {"action": policy.spec.action.labels, PROPRIO: policy.spec.proprio.labels}
    known = [label for each in labels.values() for label in each]
    for label in config.keep:
        if label not in known:
            named = f"The labels are: {', '.join(known)}" if known else "The data has no labels"
            raise ConfigError(f"normalize.keep has {label!r}, which nothing is called. {named}.")
    policy.normalizer.fit(
        statistics,
        modes={"action": config.action, PROPRIO: config.proprio},
        keep={
            name: [i for i, label in enumerate(each) if label in config.keep]
            for name, each in labels.items()
        },
    )
