import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loopdit.errors import ConfigError
from loopdit.policy.canvas.layout import v1_layout
from loopdit.policy.canvas.picture import draw_canvas
from loopdit.policy.canvas.topology import CanvasTopology, Connection, topology_named

LAYOUT = v1_layout()


def ids(path: Path) -> set[str]:
    return {element.get("id", "") for element in ElementTree.parse(path).iter()}


def words(path: Path) -> str:
    return "\n".join(element.text or "" for element in ElementTree.parse(path).iter())


def test_the_grid_shows_every_region_where_it_lies(tmp_path: Path):
    path = draw_canvas(tmp_path / "canvas.svg", LAYOUT, topology_named("dense", LAYOUT))
    drawn = {name for name in ids(path) if "@" in name}
    expected = {
        f"{region.name}@{t},{y},{x}" for region in LAYOUT.regions for t, y, x in region.places()
    }
    assert drawn == expected
    for region in LAYOUT.regions:
        assert f"{region.name} ({len(region)})" in words(path)


def test_arrows_go_from_the_region_attended_to_and_say_what_sets_them_apart(tmp_path: Path):
    topology = CanvasTopology(
        (
            Connection("reward", "frames", weight=0.5),
            Connection("future_actions", "frames", offset=-1),
            Connection("future_actions", "text"),
            Connection("text", "text"),
            Connection("proprio", "text", weight=0.0),
        )
    )
    path = draw_canvas(tmp_path / "canvas.svg", LAYOUT, topology, title="mine")
    arrows = {name for name in ids(path) if re.match("(arrow|ring) ", name)}
    assert arrows == {
        "arrow frames to reward",
        "arrow frames to future_actions",
        "arrow text to future_actions",
        "ring text",
    }
    text = words(path)
    assert "mine" in text
    assert text.count("weight 0.5") == text.count("sees t-1") == 1


def test_what_all_connections_have_is_said_once(tmp_path: Path):
    topology = topology_named("causal_in_time", LAYOUT)
    text = words(draw_canvas(tmp_path / "canvas.svg", LAYOUT, topology))
    assert text.count("sees t-4 to t") == 1


def test_the_same_picture_is_the_same_file(tmp_path: Path):
    topology = topology_named("one_way", LAYOUT)
    first, second = (
        draw_canvas(tmp_path / name, LAYOUT, topology).read_bytes() for name in ("a.svg", "b.svg")
    )
    assert first == second


def test_png_is_written_and_other_endings_are_refused(tmp_path: Path):
    topology = topology_named("isolated", LAYOUT)
    png = draw_canvas(tmp_path / "canvas.png", LAYOUT, topology)
    assert png.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"canvas.pdf: use a name ending in .svg or .png"):
        draw_canvas(tmp_path / "canvas.pdf", LAYOUT, topology)
