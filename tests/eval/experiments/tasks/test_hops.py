"""Multi-hop questions, answered by a solver that reads the tokens."""

import numpy as np
import pytest

from loopdit.eval.experiments.tasks.hops import ANSWER, FACTS, QUESTION, SYMBOLS, HopsTask


@pytest.mark.parametrize("task", [HopsTask(1), HopsTask(2), HopsTask(3)])
def test_following_the_stated_facts_gives_the_answer(task: HopsTask):
    canvas = task.canvases(200, 5, "train")
    for facts, question, answer in zip(
        canvas[FACTS].tolist(), canvas[QUESTION].tolist(), canvas[ANSWER].tolist(), strict=True
    ):
        leads = {fact[:SYMBOLS].index(1.0): fact[SYMBOLS:].index(1.0) for fact in facts}
        assert sorted(leads) == sorted(leads.values()) == list(range(SYMBOLS))
        at, hops = question[0][:SYMBOLS].index(1.0), question[0][SYMBOLS:].index(1.0)
        for _ in range(hops):
            at = leads[at]
        assert answer[0] == [1.0 if symbol == at else -1.0 for symbol in range(SYMBOLS)]
        assert hops == task.hops


def test_no_answer_is_likelier_than_another_and_none_is_where_one_starts():
    canvas = HopsTask(2).canvases(4000, 0, "train")
    answers = canvas[ANSWER].argmax(-1).squeeze(-1).numpy()
    # 500 of each expected; six standard deviations of a binomial are 126.
    assert np.abs(np.bincount(answers, minlength=SYMBOLS) - 500).max() < 126
    starts = canvas[QUESTION][:, 0, :SYMBOLS].argmax(-1).numpy()
    assert (answers != starts).all()
