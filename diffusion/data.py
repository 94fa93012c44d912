"""The training pictures, cut in two: most to learn from, some to choose settings by.

The test pictures are for the reported number alone. Whoever tries ten settings and keeps the one
with the best test distance reports a number that ten tries have fitted to those pictures.
"""

from dataclasses import replace

import numpy as np

from labkit.data import ImageData, Split, check_share


def hold_out(data: ImageData, share: float) -> tuple[ImageData, Split]:
    """The dataset with `share` of its training pictures left out, and those: (data, valid).

    The cut is the same for every run, whatever its seed, so that runs are compared on the same
    pictures. Raises UsageError when it leaves no pictures on one side.
    """
    n = len(data.train)
    check_share(n, share)
    order = np.random.default_rng(0).permutation(n)
    valid, kept = np.split(order, [round(share * n)])
    x, y = data.train.x, data.train.y
    return replace(data, train=Split(x[kept], y[kept])), Split(x[valid], y[valid])
