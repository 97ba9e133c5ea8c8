"""In-context shifts of the plane: what the pairs tell, and what nothing else does."""

import numpy as np
import pytest

from loopdit.eval.experiments.tasks.context import ANSWER, NOISE, ContextTask


def errors(pairs: int) -> np.ndarray:
    """Of who adds the posterior mean of the shift to the query: (2000,)."""
    canvas = ContextTask(pairs).canvases(2000, 2, "train")
    query, answer = canvas["query"].numpy(), canvas[ANSWER].numpy()
    shift = np.zeros_like(query)
    if pairs:
        told = (canvas["ys"].numpy() - canvas["xs"].numpy()).mean(1, keepdims=True)
        shift = told * pairs / (pairs + NOISE**2)
    return ((query + shift - answer) ** 2).mean((1, 2))


@pytest.mark.parametrize("pairs", [0, 1, 2, 4])
def test_pairs_leave_the_error_of_the_posterior_mean(pairs: int):
    found = errors(pairs)
    expected = NOISE**2 / (pairs + NOISE**2)
    # Within six standard errors of the mean.
    assert abs(found.mean() - expected) < 6 * found.std() / np.sqrt(len(found))


def test_the_shift_is_its_own_canvass_and_the_query_tells_nothing_of_it():
    canvas = ContextTask(4).canvases(2000, 0, "train")
    query, answer = canvas["query"][:, 0].numpy(), canvas[ANSWER][:, 0].numpy()
    # The mean product is 0 within six standard errors; those of two normal numbers are 1.
    assert np.abs((query * (answer - query)).mean(0)).max() < 6 / np.sqrt(2000)
