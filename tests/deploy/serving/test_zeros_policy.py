import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.echo_policy import HORIZON, SPEC, observation

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeWriter
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.deploy.serving.zeros_policy import (
    DEFAULT_HORIZON,
    DEFAULT_LOOPS,
    ZerosPolicy,
    zeros_for,
)
from loopdit.errors import ConfigError, SpecMismatch, StoreError


def test_it_answers_zeros_for_whatever_it_observes():
    policy: ServedPolicy = ZerosPolicy(SPEC, HORIZON)
    made = policy.infer(observation(3.0, 200), seed=1, loops=1, steps=1)
    np.testing.assert_array_equal(made.actions, np.zeros((HORIZON, 3), np.float32))
    assert made.actions.dtype == np.float32


def test_limits_without_a_zero_give_the_limit_nearest_to_it():
    action = replace(SPEC.action, low=(0.5, -2, -1), high=(1, -1, 1))
    made = ZerosPolicy(replace(SPEC, action=action), 2)
    actions = made.infer(observation(), seed=0, loops=1, steps=1).actions
    np.testing.assert_array_equal(actions, [[0.5, -1, 0]] * 2)


def test_another_spec_is_another_model():
    other = replace(SPEC, control_period_s=0.5)
    assert ZerosPolicy(SPEC).model_id != ZerosPolicy(other).model_id


def described(policy: ZerosPolicy) -> tuple[PolicySpec, int, tuple[int, ...]]:
    return policy.spec, policy.horizon, policy.loops


def test_it_stands_in_for_a_bundle_with_each_of_its_k(tiny_bundle: Bundle):
    made = zeros_for(str(tiny_bundle.path))
    assert described(made) == (tiny_bundle.spec, tiny_bundle.horizon, tiny_bundle.loops)
    assert [made.infer(observation(), seed=0, loops=k, steps=1).loops for k in made.loops] == [1, 2]


def test_its_spec_may_be_that_of_a_store_or_a_json_file(tmp_path: Path):
    alike = (SPEC, DEFAULT_HORIZON, DEFAULT_LOOPS)
    EpisodeWriter.create(tmp_path / "store.zarr", SPEC, {})
    assert described(zeros_for(str(tmp_path / "store.zarr"))) == alike
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    assert described(zeros_for(str(tmp_path / "spec.json"))) == alike


def test_with_nothing_said_it_is_the_shipped_bundles():
    shipped = Bundle.open(default_bundle())
    assert described(zeros_for("")) == (shipped.spec, shipped.horizon, shipped.loops)
    assert (shipped.horizon, shipped.loops) == (DEFAULT_HORIZON, DEFAULT_LOOPS)


def test_a_spec_that_cannot_be_read_says_what_to_give(tmp_path: Path):
    (tmp_path / "cut.json").write_text('{"observations": [')
    with pytest.raises(ConfigError, match=r"spec=.*cut\.json cannot be read .* Give a bundle"):
        zeros_for(str(tmp_path / "cut.json"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SpecMismatch, match="spec version None"):
        zeros_for(str(tmp_path / "other.json"))
    with pytest.raises(StoreError):
        zeros_for(str(tmp_path / "nowhere"))
