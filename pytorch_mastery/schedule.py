"""The one-cycle learning rate (Smith & Topin 2018): up in a cosine, then down to almost nothing.

A high rate in the middle regularises; a rate near zero at the end lets the weights converge. The
value depends on the step alone, so nothing has to be stored to resume.
"""

import math

from labkit import exercise


@exercise(minutes=15)
def one_cycle(step: int, total: int, peak: float, rise: float = 0.3) -> float:
    """Learning rate of step 0 <= step < total.

    It starts at peak / 25, reaches `peak` at step rise * total - 1 and ends, at the last step, at
    peak / 25 / 10^4. On each leg, a fraction p of the way from a to b, the rate is
        b + (a - b) (1 + cos(pi p)) / 2.
    These are the conventions of torch.optim.lr_scheduler.OneCycleLR. A rise of one step or less,
    rise * total <= 1 (to 10^-9, since shares are rounded), has no rising leg: step 0 is then at the
    peak (= 1) or already past it.
    """
    start, end = peak / 25, peak / 25e4
    top = rise * total - 1
    if step <= top and top > 1e-9:  # more than rounding
        a, b, progress = start, peak, step / top
    else:
        down = total - 1 - top
        a, b, progress = peak, end, (step - top) / down if down > 0 else 0.0
    return b + (a - b) * (1 + math.cos(math.pi * progress)) / 2
