"""Multi-hop questions, answered by a solver that reads the tokens."""

import numpy as np
import pytest

from loopdit.eval.experiments.tasks.hops import FACTS, HOPS, SYMBOLS, HopsTask, answer_region


@pytest.mark.parametrize("hops", HOPS)
def test_following_the_stated_facts_from_the_marked_one_gives_the_answer(hops: int):
    canvas = HopsTask().canvases(200, 5, "train")
    answers = canvas[answer_region(hops)].tolist()
    for facts, answer in zip(canvas[FACTS].tolist(), answers, strict=True):
        before = [fact[:SYMBOLS].index(1.0) for fact in facts]
        after = [fact[SYMBOLS:-1].index(1.0) for fact in facts]
        leads = dict(zip(before, after, strict=True))
        assert sorted(leads) == sorted(leads.values()) == list(range(SYMBOLS))
        (at,) = (one for one, fact in zip(before, facts, strict=True) if fact[-1] == 1.0)
        for _ in range(hops):
            at = leads[at]
        assert answer[0] == [1.0 if symbol == at else -1.0 for symbol in range(SYMBOLS)]


@pytest.mark.parametrize("hops", HOPS)
def test_no_answer_is_likelier_than_another_whatever_the_marked_facts_place(hops: int):
    canvas = HopsTask().canvases(4000, 0, "train")
    answers = canvas[answer_region(hops)].argmax(-1).squeeze(-1).numpy()
    places = canvas[FACTS][..., -1].argmax(-1).numpy()
    # 500 of each expected; six standard deviations of a binomial are 126.
    assert np.abs(np.bincount(answers, minlength=SYMBOLS) - 500).max() < 126
    assert np.abs(np.bincount(places, minlength=SYMBOLS) - 500).max() < 126
