"""In-context turns of the plane: what the pairs tell, and what nothing else does."""

import numpy as np

from loopdit.eval.experiments.tasks.context import ANSWER, ContextTask


def turn_of(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The least-squares rotation of pairs (k, 2), by Kabsch's singular values."""
    u, _, v = np.linalg.svd(ys.T @ xs)
    return u @ np.diag([1, np.linalg.det(u @ v)]) @ v


def errors(pairs: int) -> np.ndarray:
    canvas = ContextTask(pairs).canvases(400, 2, "train")
    query, answer = canvas["query"].numpy(), canvas[ANSWER].numpy()
    if not pairs:
        return (answer**2).mean((1, 2))
    xs, ys = canvas["xs"].numpy(), canvas["ys"].numpy()
    said = np.stack([turn_of(x, y) @ q[0] for x, y, q in zip(xs, ys, query, strict=True)])
    return ((said - answer[:, 0]) ** 2).mean(1)


def test_more_pairs_tell_the_turn_better_and_none_nothing():
    means = [errors(pairs).mean() for pairs in (0, 1, 2, 8)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.8
    assert means[-1] < 0.05


def test_the_answer_is_as_long_as_the_query_and_tells_nothing_without_the_turn():
    canvas = ContextTask(4).canvases(2000, 0, "train")
    query, answer = canvas["query"][:, 0].numpy(), canvas[ANSWER][:, 0].numpy()
    np.testing.assert_allclose(
        np.linalg.norm(query, axis=1), np.linalg.norm(answer, axis=1), rtol=1e-5
    )
    # The mean product is 0 within six standard errors.
    assert np.abs((query * answer).mean(0)).max() < 6 / np.sqrt(2000)
