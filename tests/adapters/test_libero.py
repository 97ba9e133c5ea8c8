"""LIBERO from the environment that `make suites SUITE=libero` makes. What needs its meshes and
scenes runs where LOOPDIT_LIBERO_ASSETS names them."""

import os
from pathlib import Path

import pytest
from tests.adapters.conftest import MakeSuiteEnv
from tests.adapters.contract import check_contract, check_determinism

from loopdit.errors import ConfigError

ASSETS = "LOOPDIT_LIBERO_ASSETS"
_BOOK = "pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy"
TASK = f"libero/libero_10/STUDY_SCENE1_{_BOOK}"
needs_assets = pytest.mark.skipif(
    ASSETS not in os.environ, reason=f"{ASSETS} names no folder libero/libero/assets"
)


def test_missing_assets_are_named_with_what_to_set(
    make: MakeSuiteEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(ASSETS, str(tmp_path))
    with pytest.raises(ConfigError, match=rf"are not at {tmp_path}.*Set {ASSETS}"):
        make(TASK)


def test_a_task_that_does_not_exist_is_refused_with_those_that_do(make: MakeSuiteEnv):
    with pytest.raises(ConfigError, match=r"no task 'libero_goal/none'. It has: libero_10/"):
        make("libero/libero_goal/none")


@needs_assets
@pytest.mark.parametrize("image_size", [0, 32])
def test_a_task_keeps_the_contract(make: MakeSuiteEnv, image_size: int):
    env = make(TASK, image_size)
    check_contract(env)
    assert env.instruction.startswith("pick up the book")


@needs_assets
def test_the_same_seed_gives_the_same_states_in_two_processes(make: MakeSuiteEnv):
    check_determinism(make(TASK), make(TASK), steps=10)
