"""Two searches without gradients: augmented random search (ARS) and the cross-entropy method.

Neither knows a simulator: both maximise a function of a parameter vector (D,). ARS is V2-t of
Mania, Guy and Recht (2018, arXiv 1803.07055), which also normalises observations by what all
rollouts so far have seen; the function therefore gets the statistics and adds to them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from loopdit.command import option


@dataclass
class RunningStatistics:
    """Mean and standard deviation of every vector (R,) seen so far, by Chan's pairwise update."""

    size: int
    count: int = 0
    mean: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.mean = np.zeros(self.size)
        self.squares = np.zeros(self.size)

    def add(self, values: np.ndarray) -> None:
        """values (T, R)."""
        count = self.count + len(values)
        offset = values.mean(0) - self.mean
        self.squares += ((values - values.mean(0)) ** 2).sum(0)
        self.squares += offset**2 * self.count * len(values) / count
        self.mean = self.mean + offset * len(values) / count
        self.count = count

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation (R,), 1 where nothing varies or too little has been seen."""
        if self.count < 2:
            return np.ones(self.size)
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation < 1e-7, 1.0, deviation)


@dataclass(frozen=True)
class RandomSearchConfig:
    """The names in brackets are the paper's."""

    updates: int = option(200, "updates of the parameters")
    directions: int = option(8, "directions tried an update, both ways [N]")
    best: int = option(4, "of them, how many are followed [b]")
    step: float = option(0.02, "step size [alpha]")
    noise: float = option(0.03, "how far a direction is tried [nu]")


@dataclass(frozen=True)
class CrossEntropyConfig:
    """Sampling around a mean that moves to the best samples."""

    updates: int = option(30, "generations")
    samples: int = option(40, "parameter vectors a generation")
    elite: int = option(8, "the best of them, which set the next mean and spread")
    floor: float = option(0.03, "smallest spread, as a share of the first one")


def random_search(
    score: Callable[[np.ndarray], float],
    start: np.ndarray,
    config: RandomSearchConfig,
    rng: np.random.Generator,
    progress: Callable[[int, np.ndarray], object] = lambda update, parameters: None,
) -> np.ndarray:
    """Parameters (D,) that score high, from `start` (D,); `progress` sees those of each update."""
    parameters = start.copy()
    for update in range(config.updates):
        directions = rng.standard_normal((config.directions, len(start)))
        scores = np.array(
            [
                [score(parameters + sign * config.noise * direction) for sign in (1, -1)]
                for direction in directions
            ]
        )  # (N, 2)
        followed = np.argsort(-scores.max(1))[: config.best]
        slopes = scores[followed, 0] - scores[followed, 1]
        scale = config.best * max(float(scores[followed].std()), 1e-6)
        parameters = parameters + config.step / scale * slopes @ directions[followed]
        progress(update, parameters)
    return parameters


def cross_entropy(
    score: Callable[[np.ndarray], float],
    start: np.ndarray,
    spread: np.ndarray,
    config: CrossEntropyConfig,
    rng: np.random.Generator,
    progress: Callable[[int, np.ndarray], object] = lambda update, parameters: None,
) -> np.ndarray:
    """The mean (D,) of the last generation's elite."""
    mean, deviation = start.copy(), spread.copy()
    for update in range(config.updates):
        samples = mean + deviation * rng.standard_normal((config.samples, len(start)))
        scores = np.array([score(sample) for sample in samples])
        elite = samples[np.argsort(-scores)[: config.elite]]
        mean = elite.mean(0)
        deviation = np.maximum(elite.std(0), config.floor * spread)
        progress(update, mean)
    return mean
