import torch
from hypothesis import given
from hypothesis import strategies as st

from loopdit.policy.objectives.prefix_loss import (
    drawn_delays,
    prefix,
    prefix_levels,
    remaining_weights,
    weighted_mean,
)

H = 8
windows = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True, width=32), st.integers(0, H)),
    min_size=1,
    max_size=6,
)  # a uniform number, and how many actions are inside the episode


@given(windows=windows, most=st.integers(0, H + 2), seed=st.integers(0, 99))
def test_the_loss_is_that_of_the_actions_after_the_delay(
    windows: list[tuple[float, int]], most: int, seed: int
):
    error = torch.rand(len(windows), H, 3, generator=torch.Generator().manual_seed(seed))
    valid = torch.stack([torch.arange(H) < inside for _, inside in windows])
    uniform = torch.tensor([u for u, _ in windows])
    delays = drawn_delays(uniform, most, valid)
    known = prefix(delays, H)
    levels = prefix_levels(torch.full((len(windows),), 0.25), known)
    loss = weighted_mean(error, remaining_weights(valid, known))

    total, counted = 0.0, 0
    for b, (u, inside) in enumerate(windows):
        delay = min(int(u * (most + 1)), max(inside - 1, 0))
        assert delays[b] == delay
        assert levels[b].tolist() == [1.0] * delay + [0.25] * (H - delay)
        if inside:
            left = error[b, delay:inside]  # never empty
            assert len(left) > 0
            total += inside * float(left.mean())
            counted += inside
    expected = total / counted if counted else 0.0
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_without_a_delay_the_weights_are_what_is_valid():
    valid = torch.arange(H) < torch.tensor([H, 3])[:, None]
    delays = drawn_delays(torch.tensor([0.999, 0.5]), 0, valid)
    assert not delays.any()
    assert torch.equal(remaining_weights(valid, prefix(delays, H)), valid.float())


def test_every_delay_is_as_likely():
    n, most = 60_000, 5
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(0))
    delays = drawn_delays(uniform, most, torch.ones(n, H, dtype=torch.bool))
    counts = torch.bincount(delays)
    assert len(counts) == most + 1
    # Binomial(n, 1 / 6): six counts, each within 6 standard deviations but once in 10^8 runs.
    assert (counts - n / 6).abs().max() < 6 * (n * 5 / 36) ** 0.5


def test_the_largest_uniform_number_is_the_longest_delay():
    most = 10
    largest = torch.nextafter(torch.ones(1), torch.zeros(1))
    assert drawn_delays(largest, most, torch.ones(1, 20, dtype=torch.bool)).item() == most
