import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.echo_policy import HORIZON, SPEC, observation

from loopdit.datasets.store import EpisodeWriter
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.deploy.serving.zeros_policy import DEFAULT_HORIZON, ZerosPolicy, spec_at
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


def test_its_spec_is_that_of_a_bundle_a_store_or_a_json_file(tiny_bundle: Bundle, tmp_path: Path):
    assert spec_at(str(tiny_bundle.path)) == (tiny_bundle.spec, tiny_bundle.horizon)
    EpisodeWriter.create(tmp_path / "store.zarr", SPEC, {})
    assert spec_at(str(tmp_path / "store.zarr")) == (SPEC, DEFAULT_HORIZON)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    assert spec_at(str(tmp_path / "spec.json")) == (SPEC, DEFAULT_HORIZON)


def test_with_nothing_said_it_is_the_shipped_bundles():
    spec, horizon = spec_at("")
    assert (horizon, spec.action.shape) == (16, (7,))


def test_a_spec_that_cannot_be_read_says_what_to_give(tmp_path: Path):
    (tmp_path / "cut.json").write_text('{"observations": [')
    with pytest.raises(ConfigError, match=r"spec=.*cut\.json cannot be read .* Give a bundle"):
        spec_at(str(tmp_path / "cut.json"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SpecMismatch, match="spec version None"):
        spec_at(str(tmp_path / "other.json"))
    with pytest.raises(StoreError):
        spec_at(str(tmp_path / "nowhere"))
