"""The curves of maps whose loops are known in closed form."""

import json

import pytest
import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.fixed_point.diagnostics import diagnose, measure
from loopdit.policy.fixed_point.step import LoopedMap


def rotation(seed: int = 0, width: int = 8) -> Tensor:
    square = torch.randn(width, width, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(square).Q


def contraction(factor: float, seed: int = 0) -> LoopedMap:
    """h -> factor * Q h + 1: every difference is turned and scaled by the factor."""
    turn = factor * rotation(seed)
    start = 9 * torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(seed + 1))
    return LoopedMap(lambda state, loop: state @ turn + 1, start)


def test_a_contraction_shows_its_factor_in_ratio_and_lipschitz():
    curves = measure(contraction(0.6), loops=15)
    assert curves.ratio.median == pytest.approx([0.6] * 14, rel=1e-3)
    assert curves.lipschitz.median == pytest.approx([0.6] * 15, rel=1e-3)
    assert curves.update_norm.median[-1] < 0.001 * curves.update_norm.median[0]
    assert curves.cosine.median[-1] > 0.999


def test_a_state_that_only_grows_has_a_cosine_near_one_and_no_contraction():
    """The trap that the other curves are for: adding the same vector again and again."""
    added = torch.ones(1, 1, 8)
    start = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0))
    curves = measure(LoopedMap(lambda state, loop: state + added, start), loops=12)
    assert curves.cosine.median[-1] > 0.999
    assert curves.relative_update.median[-1] < 0.1
    assert curves.ratio.median == pytest.approx([1.0] * 11, abs=1e-5)
    assert curves.lipschitz.median == pytest.approx([1.0] * 12, abs=1e-5)


def test_each_number_is_what_its_name_says():
    """Three loops of one sample, written out: the loop number shifts the state."""
    start = torch.tensor([[[3.0, 4.0]]])
    curves = measure(LoopedMap(lambda state, loop: state + loop + 1, start), loops=3)
    assert curves.update_norm.median == pytest.approx([2**0.5, 8**0.5, 18**0.5])
    assert curves.relative_update.median == pytest.approx(
        [2**0.5 / 5, 8**0.5 / 41**0.5, 18**0.5 / 85**0.5]
    )
    assert curves.ratio.median == pytest.approx([2.0, 1.5])
    assert curves.cosine.median[0] == pytest.approx((3 * 4 + 4 * 5) / (5 * 41**0.5))


def test_the_band_holds_four_fifths_of_the_samples():
    factors = torch.linspace(0, 1, 11).view(11, 1, 1)
    looped = LoopedMap(lambda state, loop: factors * state, torch.ones(11, 2, 4))
    lipschitz = measure(looped, loops=2).lipschitz
    found = [lipschitz.low[0], lipschitz.median[0], lipschitz.high[0]]
    assert found == pytest.approx([0.1, 0.5, 0.9], abs=1e-6)


def test_loops_that_have_arrived_give_zeros():
    curves = measure(LoopedMap(lambda state, loop: 0 * state + 1, torch.zeros(2, 3, 4)), loops=4)
    assert curves.update_norm.median[1:] == (0.0, 0.0, 0.0)
    assert curves.ratio.median == (0.0, 0.0, 0.0)
    assert json.loads(json.dumps({"ratio": curves.ratio.median}, allow_nan=False))


def test_the_null_is_measured_for_each_seed_beside_the_model():
    report = diagnose(
        contraction(0.5), lambda seed: contraction(0.9, seed), 6, trained_loops=4, null_seeds=(3, 7)
    )
    assert report.null == tuple(measure(contraction(0.9, seed), loops=6) for seed in (3, 7))
    assert report.null[0] != report.null[1]
    assert report.model == measure(contraction(0.5), loops=6)


def test_a_report_is_plain_json():
    report = diagnose(contraction(0.5), contraction_of_seed, 3, trained_loops=2, null_seeds=(0,))
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (read["samples"], read["trained_loops"], read["null_seeds"]) == (5, 2, [0])
    assert tuple(read["model"]["cosine"]["median"]) == report.model.cosine.median
    assert tuple(read["null"][0]["lipschitz"]["high"]) == report.null[0].lipschitz.high


def contraction_of_seed(seed: int) -> LoopedMap:
    return contraction(0.9, seed)


@pytest.mark.parametrize(("loops", "words"), [(1, "at least 2"), (60, "not finite after")])
def test_too_few_loops_and_states_without_bound_are_refused(loops: int, words: str):
    looped = LoopedMap(lambda state, loop: 10 * state, torch.ones(2, 3, 4))
    with pytest.raises(ConfigError, match=rf"{words}.*"):
        measure(looped, loops)
