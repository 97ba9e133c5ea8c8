import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.attention import attend
from loopdit.policy.canvas.dispatch import DispatchedAttention
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.canvas.topology import CanvasTopology, Connection

NAMES = ("a", "b", "c")
LAYOUT = CanvasLayout(
    (3, 2, 4),
    (
        Region("a", "visual", range(3), range(2), range(2)),
        Region("b", "visual", range(2), range(1), range(2, 4)),
        Region("c", "visual", range(1, 3), range(1, 2), range(2, 4)),
    ),
)
OFFSETS = st.one_of(
    st.none(), st.integers(-2, 2), st.builds(range, st.just(-2), st.integers(-1, 2))
)


def inputs(requires_grad: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(2, 2, len(LAYOUT), 4, generator=generator).requires_grad_(requires_grad)
        for _ in range(3)
    )
    return queries, keys, values


@given(
    targets=st.fixed_dictionaries({}, optional={name: st.sampled_from(NAMES) for name in NAMES}),
    offsets=st.tuples(OFFSETS, OFFSETS, OFFSETS),
    sharpness=st.floats(0.5, 2.0),
)
def test_mask_and_dispatch_agree_where_each_source_has_a_single_connection(
    targets: dict[str, str],
    offsets: tuple[int | range | None, ...],
    sharpness: float,
):
    connections = [
        Connection(source, target, offset=offset)
        for (source, target), offset in zip(targets.items(), offsets, strict=False)
    ]
    topology = CanvasTopology(tuple(connections))
    dispatched = DispatchedAttention(topology, LAYOUT)(*inputs(), sharpness=sharpness)
    masked = attend(*inputs(), topology.bias(LAYOUT), sharpness)
    torch.testing.assert_close(dispatched, masked)


def test_they_differ_where_a_source_has_two():
    """Dispatch adds two softmaxes up, each over its own keys; the mask has one over both."""
    topology = CanvasTopology((Connection("a", "b"), Connection("a", "c", weight=0.5)))
    queries, keys, values = inputs()
    dispatched = DispatchedAttention(topology, LAYOUT)(queries, keys, values)
    masked = attend(queries, keys, values, topology.bias(LAYOUT))
    a, b, c = (LAYOUT.positions(name) for name in NAMES)

    def over(keys_at: Tensor) -> Tensor:
        logits = queries[:, :, a] @ keys[:, :, keys_at].transpose(-1, -2) / 2  # sqrt(4)
        return logits.softmax(-1) @ values[:, :, keys_at]

    torch.testing.assert_close(dispatched[:, :, a], over(b) + 0.5 * over(c))
    assert (dispatched - masked)[:, :, a].abs().max() > 0.1


def test_a_weight_scales_dispatch_and_leaves_the_mask_form_of_a_single_connection():
    once, thrice = (CanvasTopology((Connection("a", "b", weight),)) for weight in (1.0, 3.0))
    dispatched = [DispatchedAttention(topology, LAYOUT)(*inputs()) for topology in (once, thrice)]
    torch.testing.assert_close(dispatched[1], 3 * dispatched[0])
    masked = [attend(*inputs(), topology.bias(LAYOUT)) for topology in (once, thrice)]
    torch.testing.assert_close(masked[1], masked[0])


def test_positions_that_see_nothing_get_zeros_and_a_finite_gradient():
    topology = CanvasTopology((Connection("a", "b", offset=1), Connection("c", "b", weight=0.0)))
    queries, keys, values = inputs(requires_grad=True)
    result = DispatchedAttention(topology, LAYOUT)(queries, keys, values)
    blind = ~topology.mask(LAYOUT).any(1)
    assert blind.any()
    assert (result[:, :, blind] == 0).all()
    assert (result[:, :, ~blind] != 0).all()
    for gradient in torch.autograd.grad(result.square().sum(), (queries, keys, values)):
        assert gradient.isfinite().all()


def test_a_topology_of_unknown_regions_is_refused():
    with pytest.raises(ConfigError, match=r"region 'arm'.*Its regions are: a, b, c\."):
        DispatchedAttention(CanvasTopology((Connection("a", "arm"),)), LAYOUT)
