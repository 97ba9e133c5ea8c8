import subprocess
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.envs.variation import AXES, parse_variation, varied_factor
from loopdit.errors import ConfigError


def test_text_names_axes_and_strengths():
    assert parse_variation("none") == {}
    assert parse_variation("lights") == {"lights": 1.0}
    assert parse_variation("lights:0.5+camera") == {"lights": 0.5, "camera": 1.0}
    assert parse_variation("all") == dict.fromkeys(AXES, 1.0)
    assert parse_variation("all:0.25") == dict.fromkeys(AXES, 0.25)


@given(st.dictionaries(st.sampled_from(AXES), st.floats(0.001, 1), min_size=1), st.randoms())
def test_the_order_in_the_text_does_not_matter(wanted: dict[str, float], random: Random):
    parts = [f"{axis}:{strength!r}" for axis, strength in wanted.items()]
    random.shuffle(parts)
    found = parse_variation("+".join(parts))
    assert found == wanted
    assert list(found) == [axis for axis in AXES if axis in wanted]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("light", "no axis 'light'"),
        ("", "no axis ''"),
        ("lights+", "no axis ''"),
        ("none+lights", "no axis 'none'"),
        ("lights:0", "strength '0'"),
        ("lights:1.5", "strength '1.5'"),
        ("lights:nan", "strength 'nan'"),
        ("lights:", "strength ''"),
        ("lights:much", "strength 'much'"),
        ("camera+camera:0.5", "names camera twice"),
        ("all+camera", "names camera twice"),
    ],
)
def test_other_text_is_refused_with_the_axes_there_are(text: str, fault: str):
    with pytest.raises(ConfigError, match=fault) as refusal:
        parse_variation(text)
    assert all(axis in str(refusal.value) for axis in AXES)


@given(st.integers(0, 10**6), st.floats(0.001, 1))
def test_less_strength_is_nearer_to_nominal(seed: int, strength: float):
    full = varied_factor(np.random.default_rng(seed), (0.5, 2.0), 1.0)
    part = varied_factor(np.random.default_rng(seed), (0.5, 2.0), strength)
    assert 0.5 <= full <= 2.0
    assert np.log(part) == pytest.approx(strength * np.log(full))


def test_reading_the_text_needs_no_mujoco():
    """It is read before an OpenGL back end is chosen, and MuJoCo imported."""
    code = "import sys, loopdit.envs.variation; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
