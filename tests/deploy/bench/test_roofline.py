from dataclasses import replace

import numpy as np
import pytest
from tests.policy.policies import SMALL, small_spec

from loopdit.deploy.bench.roofline import (
    ChunkProducts,
    Convolution,
    Product,
    Speed,
    chunk_products,
    floor,
)
from loopdit.deploy.bench.roofline_products import TimedProducts
from loopdit.deploy.bench.timed_backend import Workload
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.probes import Probes, bundle_probes, make_probes
from loopdit.policy.block import HEAD_SIZE
from loopdit.policy.looped_policy import LoopedPolicy


@pytest.fixture(scope="module")
def probes(tiny_policy: LoopedPolicy) -> Probes:
    return make_probes(tiny_policy.spec, tiny_policy.horizon, 4, seed=0)


def flops_of_loops(queries: int, keys: int, width: int, loops: int) -> int:
    """Of the blocks by hand: projections, attention, SwiGLU; a product of (m, k, n) has 2 m k n."""
    hidden = width * 8 // 3
    linear = 2 * queries * width * (3 * width + width + 2 * hidden) + 2 * queries * hidden * width
    heads = width // HEAD_SIZE
    attention = 2 * (2 * heads * queries * keys * HEAD_SIZE)
    return loops * (linear + attention)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("loops", [1, 2])
def test_the_products_of_a_step_are_those_of_the_equations(
    tiny_policy: LoopedPolicy, probes: Probes, loops: int, batch: int
):
    width, horizon, group = 32, 4, tiny_policy.config.actions_per_token
    observed, acting = 4 + 1, horizon // group  # keypoints and proprio; actions
    ends = 2 * (2 * acting * (group * 2) * width)  # into tokens, and out of them once
    by_hand = flops_of_loops(acting, observed + acting, width, loops) + ends
    products = chunk_products(tiny_policy, probes, loops, batch)
    assert sum(product.flops for product in products.step) == batch * by_hand


def test_one_more_loop_of_encoding_adds_one_pass_over_the_observation(
    tiny_policy: LoopedPolicy, probes: Probes
):
    one, two = (
        sum(product.flops for product in chunk_products(tiny_policy, probes, loops, 1).encode)
        for loops in (1, 2)
    )
    assert two - one == flops_of_loops(5, 5, 32, 1)


def test_loops_share_their_weights_in_the_bytes_that_are_read_again(
    tiny_policy: LoopedPolicy, probes: Probes
):
    one, two = (chunk_products(tiny_policy, probes, loops, 1) for loops in (1, 2))
    assert one.step_weights("fp32") == two.step_weights("fp32")
    assert one.step_weights("bf16") * 2 == one.step_weights("int8") * 4 == one.step_weights("fp32")


def test_a_convolution_counts_what_it_multiplies():
    product = Product((2, 3, 9, 8), (5, 3, 3, 3), 0, Convolution((2, 2), (1, 1), 1))
    assert product.output == (2, 5, 5, 4)
    assert product.flops == 2 * (2 * 5 * 5 * 4) * (3 * 3 * 3)


def test_a_convolution_of_words_has_one_axis():
    product = Product((2, 3, 9), (5, 3, 3), 0, Convolution((2,), (1,), 1))
    assert product.output == (2, 5, 5)
    assert product.flops == 2 * (2 * 5 * 5) * (3 * 3)


def test_what_an_instruction_says_is_left_out_however_it_is_told():
    def encoded(instruction: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        config = replace(SMALL, instruction=instruction, instructions=["lift", "stack"])
        policy = LoopedPolicy(small_spec(), config).eval()
        vocabulary = config.vocabulary
        assert vocabulary is not None

        def tell(said: str) -> np.ndarray:
            told = vocabulary.told(instruction, said)
            assert told is not None
            return told

        probes = make_probes(
            policy.spec, policy.horizon, 2, seed=0, tell=tell, instructions=["lift"]
        )
        return [(one.left, one.right) for one in chunk_products(policy, probes, 1, 1).encode]

    assert encoded("words") == encoded("task")  # words are convolved, a task is looked up


def test_the_floor_is_the_longer_of_operations_and_bytes_for_each_product():
    # 2 * 8^3 operations over 512 bytes; 2 * 64 operations over 4 * (64 + 64) bytes.
    square, vector = Product((8, 8), (8, 8), 0), Product((1, 64), (64, 1), 1)
    products = ChunkProducts((square,), (vector,))
    found = floor(products, 10, "fp32", Speed(flops_per_s=1e3, bytes_per_s=1e3))
    assert found.flops_ms == pytest.approx(1e3 * (1024 + 10 * 128) / 1e3)
    assert found.bytes_ms == pytest.approx(1e3 * (512 + 10 * 512) / 1e3)
    assert found.products_ms == pytest.approx(1e3 * (1024 + 10 * 512) / 1e3)
    assert found.launches_ms == 0


def test_smaller_numbers_are_fewer_bytes_and_int8_is_of_weights_alone():
    weights, computed = Product((2, 4), (4, 8), 7), Product((2, 4), (4, 8), None)
    assert [weights.bytes(p) for p in ("fp32", "bf16", "int8")] == [160, 80, 32 + 32]
    assert [computed.bytes(p) for p in ("fp32", "bf16", "int8")] == [160, 80, 160]


@pytest.mark.parametrize("runtime", ["torch fp32", "torch bf16", "onnxruntime fp32"])
def test_every_runtime_multiplies_convolutions_of_words_and_of_pictures(
    tiny_bundle: Bundle, runtime: str
):
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 1, seed=0)
    timed = TimedProducts(Workload(str(tiny_bundle.path), probes, 1), "cpu", "bf16")
    words = Product((1, 3, 9), (5, 3, 3), 0, Convolution((1,), (1,), 1))
    picture = Product((1, 3, 9, 8), (5, 3, 3, 3), 1, Convolution((2, 2), (1, 1), 1))
    makes = dict(timed._runtimes())  # pyright: ignore[reportPrivateUsage]
    makes[runtime]([words, picture])()


def test_the_products_alone_are_timed_and_more_steps_take_longer(tiny_bundle: Bundle):
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 4, seed=0)
    timed = TimedProducts(Workload(str(tiny_bundle.path), probes, 3), "cpu", "fp32")
    short, _ = timed.time(2, 2, 1, 9)
    long, _ = timed.time(2, 40, 1, 9)
    assert short.shape == (9, 2)
    assert (np.median(long, axis=0) > 2 * np.median(short, axis=0)).all()
    assert timed.runtime().endswith("fp32")
    speed = timed.speed(2, 1)
    # A core since 2010 does more than this, and none does as much as that.
    assert 1e9 < speed.flops_per_s < 1e14
    assert 1e8 < speed.bytes_per_s < 1e14


@pytest.mark.system
def test_the_shipped_policy_whose_instructions_are_words_has_products_too():
    bundle = Bundle.open(default_bundle())
    probes = bundle_probes(bundle, 1, seed=0)
    timed = TimedProducts(Workload(str(bundle.path), probes, 2), "cpu", "fp32")
    times, _ = timed.time(1, 2, 1, 3)
    assert (times > 0).all()
