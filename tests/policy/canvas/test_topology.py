import math

import pytest
import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.attention import attend
from loopdit.policy.canvas.layout import CanvasLayout, Region, v1_layout
from loopdit.policy.canvas.topology import (
    TOPOLOGIES,
    CanvasTopology,
    Connection,
    topology_named,
)

NAMES = ("a", "b", "c")
# Three regions of two times each, one position a time, and a column of no region.
LAYOUT = CanvasLayout(
    (2, 1, 4),
    tuple(Region(n, "visual", range(2), range(1), range(i, i + 1)) for i, n in enumerate(NAMES)),
    outputs=("c",),
)


def seen(topology: CanvasTopology) -> dict[str, set[str]]:
    """By region, which regions any of its tokens may attend to."""
    mask = topology.mask(LAYOUT)
    where = {name: LAYOUT.positions(name) for name in NAMES}
    return {
        source: {
            target for target in NAMES if mask[where[source][:, None], where[target][None]].any()
        }
        for source in NAMES
    }


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        (CanvasTopology.dense(NAMES), {"a": "abc", "b": "abc", "c": "abc"}),
        (CanvasTopology.isolated(NAMES), {"a": "a", "b": "b", "c": "c"}),
        (CanvasTopology.hub_and_spoke("a", ("b", "c")), {"a": "abc", "b": "ab", "c": "ac"}),
        (CanvasTopology.causal_chain(NAMES), {"a": "a", "b": "ab", "c": "bc"}),
        (CanvasTopology.one_way(("a", "b"), ("c",)), {"a": "ab", "b": "ab", "c": "abc"}),
    ],
)
def test_each_constructor_joins_the_regions_that_it_is_named_for(
    topology: CanvasTopology, expected: dict[str, str]
):
    assert seen(topology) == {name: set(targets) for name, targets in expected.items()}


def test_causal_in_time_never_looks_ahead():
    mask = CanvasTopology.causal_in_time(NAMES, steps=2).mask(LAYOUT)
    times = LAYOUT.coordinates()[:, 0]
    inside = torch.cat([LAYOUT.positions(name) for name in NAMES])
    expected = times[None, :] <= times[:, None]
    pairs = inside[:, None], inside[None, :]
    torch.testing.assert_close(mask[pairs], expected[pairs])


def test_an_offset_selects_the_time_that_is_seen():
    mask = CanvasTopology((Connection("a", "b", offset=-1),)).mask(LAYOUT)
    joined = [(int(row), int(column)) for row, column in mask.nonzero()]
    assert joined == [(int(LAYOUT.positions("a")[1]), int(LAYOUT.positions("b")[0]))]


def test_information_comes_only_along_connections():
    """What the target holds changes the source's result, what others hold does not."""
    bias = CanvasTopology((Connection("a", "b"),)).bias(LAYOUT)
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(1, 1, 8, 4, generator=generator) for _ in range(3))
    jacobian = torch.autograd.functional.jacobian(
        lambda v: attend(queries, keys, v, bias).sum(-1), values
    )
    assert isinstance(jacobian, Tensor)
    reached = jacobian.abs().amax((0, 1, 3, 4, 6)) > 0  # (query, key)
    torch.testing.assert_close(reached, CanvasTopology((Connection("a", "b"),)).mask(LAYOUT))


def test_a_weight_counts_a_key_as_often_as_it_says():
    """Weight 3 on one connection: the softmax over a list that holds its keys three times."""
    topology = CanvasTopology((Connection("a", "b", weight=3.0), Connection("a", "c")))
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(1, 2, 8, 4, generator=generator) for _ in range(3))
    b, c = LAYOUT.positions("b"), LAYOUT.positions("c")
    repeated = torch.cat([b, b, b, c])
    sources = LAYOUT.positions("a")
    expected = attend(queries[:, :, sources], keys[:, :, repeated], values[:, :, repeated])
    result = attend(queries, keys, values, topology.bias(LAYOUT))[:, :, sources]
    torch.testing.assert_close(result, expected)


def test_weights_of_connections_that_join_the_same_pair_add():
    twice = CanvasTopology((Connection("a", "b", 0.5), Connection("a", "b", 1.5)))
    pair = (int(LAYOUT.positions("a")[0]), int(LAYOUT.positions("b")[0]))
    assert twice.bias(LAYOUT)[pair] == pytest.approx(math.log(2.0))


@pytest.mark.parametrize("weight", [0.0, -0.5, math.nan, math.inf])
def test_weight_zero_is_no_connection_and_a_bad_one_is_refused(weight: float):
    if weight == 0:
        assert not CanvasTopology((Connection("a", "b", weight),)).mask(LAYOUT).any()
    else:
        with pytest.raises(ConfigError, match="a -> b has weight"):
            Connection("a", "b", weight)


@pytest.mark.parametrize(
    "topology",
    [
        CanvasTopology.dense(NAMES),
        CanvasTopology.isolated(NAMES),
        CanvasTopology((Connection("a", "b", 0.5), Connection("b", "c", 0.5))),
        CanvasTopology((Connection("a", "b", 0.5), Connection("a", "c"))),
    ],
)
def test_the_cheapest_bias_gives_what_the_full_one_gives(topology: CanvasTopology):
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 2, 8, 4, generator=generator) for _ in range(3))
    full = attend(queries, keys, values, topology.bias(LAYOUT))
    cheap = attend(queries, keys, values, topology.attention_bias(LAYOUT))
    torch.testing.assert_close(cheap, full)


def test_dense_attention_over_a_full_canvas_needs_no_bias():
    layout = v1_layout()
    assert CanvasTopology.dense(layout.names).attention_bias(layout) is None


def test_positions_that_see_nothing_get_zeros_and_a_finite_gradient():
    topology = CanvasTopology((Connection("a", "b", offset=-1),))
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(1, 2, 8, 4, generator=generator, requires_grad=True) for _ in range(3)
    )
    blind = ~topology.mask(LAYOUT).any(1)
    assert blind.sum() == 7
    for bias in (topology.bias(LAYOUT), topology.mask(LAYOUT)):
        result = attend(queries, keys, values, bias)
        assert (result[:, :, blind] == 0).all()
        assert (result[:, :, ~blind] != 0).any()
        for gradient in torch.autograd.grad(result.square().sum(), (queries, keys, values)):
            assert gradient.isfinite().all()


def test_a_topology_of_unknown_regions_names_them_and_those_that_there_are():
    topology = CanvasTopology.one_way(("a",), ("arm",))
    with pytest.raises(ConfigError, match=r"region 'arm'.*Its regions are: a, b, c\."):
        topology.mask(LAYOUT)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_named_topology_fits_the_v1_canvas(name: str):
    layout = v1_layout()
    assert topology_named(name, layout).mask(layout).any(1).all()


def test_an_unknown_topology_is_answered_with_the_known():
    with pytest.raises(ConfigError, match=r"no canvas topology is named 'ring'.*one_way"):
        topology_named("ring", v1_layout())
