"""Some of the tokens of each sample, taken out and put back.

Shapes: B batch, N tokens, n of them, X anything. `rows` (B, n) are their numbers. A batch of one,
which is a robot's, takes whole rows: that is several times faster than element by element.
"""

from torch import Tensor


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """(B or 1, ..., N or 1, X) -> (B, ..., n, X); unchanged where it is the same for all tokens."""
    if values.shape[-2] == 1:
        return values
    if len(rows) == 1:
        return values.index_select(-2, rows[0])
    return values.take_along_dim(_places(values, rows), -2)


def put_rows(whole: Tensor, rows: Tensor, part: Tensor) -> Tensor:
    """A copy of `whole` (B, ..., N, X) with `part` (B, ..., n, X) at `rows`."""
    if len(rows) == 1:
        return whole.index_copy(-2, rows[0], part)
    return whole.scatter(-2, _places(whole, rows).expand_as(part), part)


def _places(values: Tensor, rows: Tensor) -> Tensor:
    between = (1,) * (values.ndim - 3)
    return rows.view(len(rows), *between, -1, 1)
