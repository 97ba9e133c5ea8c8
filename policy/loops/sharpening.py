"""Progressive sharpening: attention starts broad and gets nearer to a choice with every loop.

Equation 2 of the paper. Knows nothing of attention: `attend` takes the number.
"""


def sharpness(loop: int, loops: int, sharpest: float, broadest: float = 1.0) -> float:
    """beta of loop 0..`loops` - 1: from `broadest` in the first to `sharpest` in the last.

    One loop alone is a first one. `loops` is how many there can be, not how many are run: a pass
    that stops early is then the beginning of one that does not.
    """
    if loops == 1:
        return broadest
    return broadest + loop / (loops - 1) * (sharpest - broadest)
