from tests.eval.runs.test_results import rollouts

from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.rollout_record import Episode
from loopdit.eval.runs.filming import worth_seeing
from loopdit.eval.runs.plan import Job


def chosen(outcomes: str, count: int) -> list[int]:
    """Places in `outcomes` of what is filmed."""
    done = rollouts(outcomes)
    episodes = [Episode(Job("", Condition(1, 10), r.seed), r) for r in done]
    return [episode.job.seed - 900_000 for episode in worth_seeing(episodes, count)]


def test_a_success_and_a_failure_are_shown_before_a_second_of_either():
    assert chosen("sssfsf", 2) == [0, 3]
    assert chosen("fsfs", 3) == [1, 0, 3]


def test_of_one_kind_alone_there_are_as_many_as_were_asked_for():
    assert chosen("ffff", 2) == [0, 1]
    assert chosen("sss", 5) == [0, 1, 2]
    assert chosen("ssss", 0) == []


def test_broken_physics_is_shown_as_a_failure_and_what_has_no_actions_is_not_shown():
    assert chosen("seus", 9) == [0, 2, 3]
