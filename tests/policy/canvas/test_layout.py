import pytest
import torch

from loopdit.errors import ConfigError
from loopdit.policy.canvas.layout import CanvasLayout, Region, v1_layout


def box(name: str, t: range, y: range, x: range) -> Region:
    return Region(name, "visual", t, y, x)


def test_positions_go_by_time_then_row_then_column():
    region = box("corner", range(1, 3), range(2), range(1, 3))
    layout = CanvasLayout((3, 2, 4), (region,))
    counted = [
        flat
        for flat in range(3 * 2 * 4)
        if flat // 8 in (1, 2) and flat // 4 % 2 in (0, 1) and flat % 4 in (1, 2)
    ]
    assert layout.positions("corner").tolist() == counted
    assert len(region) == len(counted)


def test_coordinates_are_those_of_the_flat_index():
    layout = CanvasLayout((3, 2, 4), ())
    t, y, x = layout.coordinates().unbind(1)
    assert ((t * 2 + y) * 4 + x).tolist() == list(range(24))


def test_the_v1_canvas_is_full_and_two_thirds_of_it_are_visual():
    layout = v1_layout()
    places = torch.cat([layout.positions(name) for name in layout.names])
    assert sorted(places.tolist()) == list(range(120))
    assert sum(len(region) for region in layout.regions if region.kind == "visual") == 80
    kinds = {region.kind for region in layout.regions}
    assert kinds == {"visual", "text", "proprio", "action", "reward"}


def test_outputs_are_the_positions_of_the_regions_that_are_predicted():
    layout = v1_layout()
    predicted = layout.is_output().nonzero()[:, 0].tolist()
    named = [layout.positions(name) for name in ("future_frames", "reward", "future_actions")]
    assert predicted == sorted(torch.cat(named).tolist())
    assert set(layout.inputs) | set(layout.outputs) == set(layout.names)


def test_regions_that_overlap_are_named_with_the_place():
    regions = (
        box("camera", range(2), range(2), range(2)),
        box("words", range(1, 2), range(1, 2), range(1, 3)),
    )
    with pytest.raises(ConfigError, match=r"'camera' and 'words' .* overlap at \(t=1, y=1, x=1\)"):
        CanvasLayout((2, 2, 3), regions)


@pytest.mark.parametrize(
    ("region", "axis", "message"),
    [
        (box("late", range(1, 3), range(1), range(1)), "t", "its t goes from 1 to 2"),
        (box("low", range(1), range(4), range(1)), "y", "its y goes from 0 to 3"),
        (box("left", range(1), range(1), range(-1, 1)), "x", "its x goes from -1 to 0"),
    ],
)
def test_a_region_that_leaves_the_grid_is_named_with_its_axis(
    region: Region, axis: str, message: str
):
    with pytest.raises(ConfigError, match=f"'{region.name}' leaves the canvas.*{message}"):
        CanvasLayout((2, 3, 4), (region,))


def test_an_empty_or_doubled_region_is_refused():
    empty = box("nothing", range(0), range(1), range(1))
    with pytest.raises(ConfigError, match="'nothing' of the canvas is empty"):
        CanvasLayout((1, 1, 2), (empty,))
    twice = tuple(box("camera", range(1), range(1), range(i, i + 1)) for i in range(2))
    with pytest.raises(ConfigError, match="two regions of the canvas are named 'camera'"):
        CanvasLayout((1, 1, 2), twice)


def test_an_unknown_name_is_answered_with_those_that_there_are():
    camera = box("camera", range(1), range(1), range(1))
    with pytest.raises(ConfigError, match=r"no region 'lidar'. Its regions are: camera\."):
        CanvasLayout((1, 1, 1), (camera,), outputs=("lidar",))
