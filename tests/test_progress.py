import pytest

from loopdit.progress import Progress, clock_text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_every_five_seconds_and_the_last_one(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with Progress("train", total=100, clock=clock) as progress:
        for done in range(1, 101):
            clock.now += 0.2
            progress.update(done, f"loss {done}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train   1%  0:00 passed, 0:20 to go  loss 1"
    assert lines[-1] == "train 100%  0:20 passed, 0:00 to go  loss 100"
    assert len(lines) == 5  # at 0.2, 5.2, 10.2 and 15.2 s, and at the end


def test_a_resumed_run_is_timed_by_its_own_work(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with Progress("train", total=1.0, clock=clock, already=0.5) as progress:
        clock.now = 10.0
        progress.update(0.6)
    # A tenth in 10 s, so four tenths in 40 s: what was there before says nothing of the speed.
    assert "60%  0:10 passed, 0:40 to go" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (83.4, "1:23"), (3601, "60:01")])
def test_times_read_as_minutes_and_seconds(seconds: float, text: str):
    assert clock_text(seconds) == text
