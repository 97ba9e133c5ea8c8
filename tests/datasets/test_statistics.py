import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.statistics import VectorStatistics, compute_statistics
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.errors import SpecMismatch, StoreError

MakeEpisode = Callable[[int, int], Episode]


def test_statistics_are_those_of_all_steps_of_all_episodes(store: Path, episode: MakeEpisode):
    found = compute_statistics(EpisodeStore.open(store))
    episodes = [episode(seed, length) for seed, length in enumerate((5, 1, 8))]
    stacked = {
        "proprio": np.vstack([e.observations["proprio"] for e in episodes]),
        "action": np.vstack([e.actions for e in episodes]),
    }
    assert set(found) == set(stacked)
    for name, rows in stacked.items():
        for column in range(rows.shape[1]):
            values = sorted(float(v) for v in rows[:, column])
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            # linear between the neighbouring sorted values, at 1 % of the way from first to last
            at = 0.01 * (len(values) - 1)
            assert found[name].mean[column] == pytest.approx(mean, rel=1e-12)
            assert found[name].std[column] == pytest.approx(variance**0.5, rel=1e-12)
            assert found[name].low[column] == values[0]
            assert found[name].high[column] == values[-1]
            assert found[name].q01[column] == pytest.approx(
                values[0] + at * (values[1] - values[0]), rel=1e-9
            )
            assert found[name].q99[column] == pytest.approx(
                values[-1] - at * (values[-1] - values[-2]), rel=1e-9
            )


def test_an_element_that_never_changes_has_no_spread_and_its_own_value_as_range(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    example = episode(0, 30)
    example.actions[:, 2] = 0.1
    EpisodeWriter.create(tmp_path / "store", spec, {}).append(example)
    action = compute_statistics(EpisodeStore.open(tmp_path / "store"))["action"]
    assert action.std[2] == pytest.approx(0, abs=1e-15)
    assert action.low[2] == action.high[2] == action.q01[2] == action.q99[2] == np.float32(0.1)


def test_statistics_do_not_depend_on_the_order_of_the_episodes(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    results: list[dict[str, VectorStatistics]] = []
    for name, seeds in (("one", range(8)), ("other", reversed(range(8)))):
        writer = EpisodeWriter.create(tmp_path / name, spec, {})
        for seed in seeds:
            writer.append(episode(seed, 3))
        results.append(compute_statistics(EpisodeStore.open(tmp_path / name)))
    assert results[0] == results[1]


def test_statistics_of_several_parts_are_those_of_one_store_with_their_episodes(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    for name, seeds in (("one", (0, 1, 2)), ("other", (3, 4)), ("both", (0, 1, 3, 4))):
        writer = EpisodeWriter.create(tmp_path / name, spec, {})
        for seed in seeds:
            writer.append(episode(seed, 3 + seed))
    one, other, both = (EpisodeStore.open(tmp_path / name) for name in ("one", "other", "both"))
    parts = [DataPart(one, [0, 1], weight=9), DataPart(other, [1, 0], weight=1)]
    assert compute_statistics(parts) == compute_statistics(both)


def test_statistics_of_more_steps_than_a_block_are_those_of_numpy(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    actions = np.random.default_rng(0).normal(size=(70_000, 3)).astype(np.float32)
    still = episode(0, 1).observations
    frames = {name: np.repeat(value, 70_000, axis=0) for name, value in still.items()}
    writer = EpisodeWriter.create(tmp_path / "store", spec, {}, frames="zstd")
    writer.append(replace(episode(0, 1), observations=frames, actions=actions))
    found = compute_statistics(EpisodeStore.open(tmp_path / "store"))["action"]
    exact = actions.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, exact.std(axis=0), rtol=1e-12)
    for name, share in (("low", 0), ("q01", 0.01), ("q99", 0.99), ("high", 1)):
        np.testing.assert_allclose(
            getattr(found, name), np.quantile(exact, share, axis=0), rtol=1e-12
        )


def test_a_store_without_episodes_has_no_statistics(tmp_path: Path, spec: PolicySpec):
    EpisodeWriter.create(tmp_path / "empty", spec, {})
    with pytest.raises(StoreError, match=r"/empty has no episodes"):
        compute_statistics(EpisodeStore.open(tmp_path / "empty"))


@given(
    rows=st.integers(1, 5).flatmap(
        lambda n: st.tuples(*[st.tuples(*[st.floats(allow_nan=False)] * n)] * 6)
    )
)
def test_statistics_read_back_from_json_are_the_same(rows: tuple[tuple[float, ...], ...]):
    statistics = VectorStatistics(*rows)
    read = VectorStatistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    assert read == statistics


def test_statistics_without_a_field_or_of_unequal_lengths_are_refused():
    good = VectorStatistics(*[(0.0, 1.0)] * 6).to_dict()
    missing = {name: values for name, values in good.items() if name != "std"}
    for broken in (missing, good | {"std": [1.0]}, good | {"median": [0.0, 1.0]}):
        with pytest.raises(SpecMismatch, match=r"unreadable statistics: .* Compute them again"):
            VectorStatistics.from_dict(broken)
