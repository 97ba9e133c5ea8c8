import pytest

from loopdit.deploy.info.command import InfoConfig, facts
from loopdit.errors import ConfigError


def test_a_cell_of_the_papers_grid_is_counted_without_memory():
    found = facts(InfoConfig(preset="cogvideox_2b", freeze="half", loops=3))
    assert found["trainable"] == 3_692_641
    parts = found["parts"]
    head, loops = parts["action_head"]["parameters"], parts["loops"]["parameters"]
    assert (head, loops) == (199, 3 * 30 * (2 * 1920 + 1))
    assert found["parameters"] == 1_693_783_872 + head + loops
    assert parts["transformer_blocks"] == {"parameters": 30 * 56_081_536, "trainable": 0}


def test_a_graft_is_frozen_with_three_loops_where_nobody_says():
    assert facts(InfoConfig(preset="cogvideox_2b"))["trainable"] == 349_729


def test_options_of_a_graft_are_refused_elsewhere():
    with pytest.raises(ConfigError, match="preset=ship is none"):
        facts(InfoConfig(preset="ship", freeze="half"))
    with pytest.raises(ConfigError, match="freeze=half does nothing without preset"):
        InfoConfig(target="somewhere", freeze="half")
    with pytest.raises(ConfigError, match="freeze=most is unknown"):
        facts(InfoConfig(preset="cogvideox_2b", freeze="most"))
