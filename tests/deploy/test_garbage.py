"""Collections that a process in service is spared, and what is collected all the same."""

import gc
import weakref
from collections.abc import Generator

import pytest

from loopdit.deploy.garbage import collect_again, collect_young, settle_garbage, stop_collecting


class _Cycle:
    """Freed by the collector alone."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Generator[None]:
    yield
    collect_again()
    gc.collect()


def test_what_is_alive_is_not_looked_at_by_later_collections():
    lasting = _Cycle()
    assert any(one is lasting for one in gc.get_objects())
    settle_garbage()
    assert not any(one is lasting for one in gc.get_objects())


def test_what_comes_later_is_collected_and_what_lasted_stays():
    lasting = _Cycle()
    settle_garbage()
    later = weakref.ref(_Cycle())
    gc.collect()
    assert later() is None
    assert lasting.itself is lasting


def test_settling_again_frees_what_has_died_since():
    lasting = _Cycle()
    settle_garbage()
    seen = weakref.ref(lasting)
    del lasting
    gc.collect()
    assert seen() is not None
    settle_garbage()
    assert seen() is None


def test_between_stop_and_again_only_the_young_are_collected():
    stop_collecting()
    assert not gc.isenabled()
    young = weakref.ref(_Cycle())
    collect_young()
    assert young() is None
    collect_again()
    assert gc.isenabled()
