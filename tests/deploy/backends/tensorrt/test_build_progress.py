import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.deploy.backends.tensorrt.build_progress import BuildProgress

NAMES = st.sampled_from("abcd")
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), NAMES, st.none() | NAMES, st.integers(-1, 9)),
        st.tuples(st.just("step"), NAMES, st.integers(0, 20)),
        st.tuples(st.just("finish"), NAMES),
    ),
    max_size=40,
)


def test_a_step_of_a_child_is_part_of_a_step_of_its_parent():
    progress = BuildProgress()
    progress.start("build", None, 4)
    assert progress.step("build", 0) == pytest.approx(1 / 4)
    progress.start("time kernels", "build", 10)
    assert progress.step("time kernels", 4) == pytest.approx((1 + 5 / 10) / 4)
    progress.finish("time kernels")
    assert progress.step("build", 1) == pytest.approx(2 / 4)
    progress.step("build", 3)
    assert progress.finish("build") == 1


@given(events=EVENTS)
def test_whatever_is_reported_it_never_falls_and_stays_from_0_to_1(events: list[tuple[str, ...]]):
    progress, before = BuildProgress(), 0.0
    for name, *arguments in events:
        getattr(progress, name)(*arguments)
        assert before <= progress.share <= 1
        before = progress.share
