from hypothesis import given
from hypothesis import strategies as st

from loopdit.deploy.robot.control.pacer import Pacer, Tick

PERIOD_S = 0.02


class Time:
    """A clock that a sleep moves on."""

    def __init__(self) -> None:
        self.now = 7.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.floats(0, 0.0199), max_size=200))
def test_ticks_stay_on_their_grid_whatever_each_takes(works: list[float]):
    time = Time()
    pacer = Pacer(PERIOD_S, time, time.sleep)
    for count, work in enumerate(works):
        tick = pacer.wait()
        assert tick.missed == 0
        assert abs(tick.due_s - (7.0 + count * PERIOD_S)) < 1e-9
        assert abs(time.now - tick.due_s) < 1e-9
        time.now += work


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=60))
def test_ticks_that_had_no_time_are_counted_and_never_made_up_for(works: list[float]):
    time = Time()
    pacer = Pacer(PERIOD_S, time, time.sleep)
    ticks: list[Tick] = []
    for work in works:
        ticks.append(tick := pacer.wait())
        assert time.now - tick.due_s < PERIOD_S + 1e-6
        time.now += work
    passed = round((ticks[-1].due_s - 7.0) / PERIOD_S)
    assert sum(tick.missed for tick in ticks) == passed - (len(works) - 1)
