import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from loopdit.datasets.ranked_values import values_at_ranks


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@given(data=st.data())
def test_the_value_at_a_rank_is_that_of_the_sorted_column(dtype: str, data: st.DataObject):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 3)))
    elements = None if dtype == "int32" else {"allow_nan": False}
    values = data.draw(arrays.arrays(dtype, shape, elements=elements))
    ranks = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=4))
    np.testing.assert_array_equal(values_at_ranks(values, ranks), np.sort(values, axis=0)[ranks])


def test_more_rows_than_a_block_are_ranked_together():
    values = np.random.default_rng(0).normal(size=(200_000, 2)).astype(np.float32)
    ranks = [0, 1999, 2000, 199_999]
    np.testing.assert_array_equal(values_at_ranks(values, ranks), np.sort(values, axis=0)[ranks])
