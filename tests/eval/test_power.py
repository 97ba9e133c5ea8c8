"""`policy-eval power` as it is called."""

import sys

import pytest

from loopdit.errors import ConfigError
from loopdit.eval.power import PowerConfig, main, plan


def test_the_table_has_what_each_test_needs(capsys: pytest.CaptureFixture[str]):
    before = sys.argv[:]
    main(["a=0.7", "b=0.8", "rho=0.5"])
    made = plan(PowerConfig(a=0.7, b=0.8, rho=0.5))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "70 % against 80 %, found with chance 80 % (alpha 0.05)"
    assert made.paired is not None
    assert f"same seeds, McNemar exact {made.paired} {made.paired} {2 * made.paired}" in lines
    assert any(f"e-process at most {made.sequential_limit}" in line for line in lines)
    assert "different seeds, z test 294 each 294 each 588" in lines
    assert sys.argv == before


def test_alike_seeds_save_episodes_and_more_comparisons_cost_some():
    plain, alike = plan(PowerConfig()), plan(PowerConfig(rho=0.6))
    many = plan(PowerConfig(comparisons=5))
    assert plain.paired is not None
    assert alike.paired is not None
    assert many.paired is not None
    assert alike.paired < plain.paired / 2 < many.paired / 2
    assert plain.sequential_limit is not None
    assert plain.sequential_expected is not None
    assert plain.sequential_expected < plain.paired < plain.sequential_limit
    assert plan(PowerConfig(a=0.8, b=0.7)) == plain


def test_a_tiny_difference_is_said_to_need_too_many(capsys: pytest.CaptureFixture[str]):
    main(["a=0.7", "b=0.702"])
    out = capsys.readouterr().out
    assert out.count("over 20000") == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"a": 1.2}, r"a=1\.2 is not a rate"),
        ({"a": 0.8}, "are equal"),
        ({"power": 1.0}, r"power=1\.0 must be between 0 and 1"),
        ({"rho": 0.9}, r"rho=0\.9 cannot be: .* from -0\.33 to 0\.76"),
        ({"comparisons": 0}, "comparisons=0 must be at least 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(options: dict[str, float], reason: str):
    with pytest.raises(ConfigError, match=reason):
        PowerConfig(**options)  # pyright: ignore[reportArgumentType] - comparisons is an int here
