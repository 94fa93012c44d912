"""Learning rates over a run, as a factor on the peak.

    cosine                 up, then half a cosine down to a tenth    Brown et al. 2020, appendix B
    warmup_stable_decay    up, level, straight down to zero          Hu et al. 2024, MiniCPM, s. 4

A cosine needs its number of steps before it starts. The level part of the other can have any
length, but the gain from its decay appears only at the end.
"""

import math

from labkit import exercise


@exercise(minutes=15)
def cosine(step: int, steps: int, warmup: int, floor: float = 0.1) -> float:
    """Factor at `step` (0, 1, ..., steps - 1) of a linear warm-up and a cosine decay.

    The first `warmup` steps rise in equal parts and end at 1: 1/warmup, 2/warmup, ..., 1. From
    step `warmup` on it is floor + (1 - floor) (1 + cos π p) / 2, where the progress p goes from 0
    (step `warmup`) to 1 (which would be step `steps`).
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


@exercise(minutes=10)
def warmup_stable_decay(step: int, steps: int, warmup: int, decay: int) -> float:
    """Factor at `step` (0, 1, ..., steps - 1): up, level at 1, and down.

    The first `warmup` steps rise as in `cosine`. The last `decay` steps fall in equal parts, from 1
    at the first of them to 1/decay at the very last: a factor of 0 would waste a step. Where
    warm-up and decay overlap, the smaller factor counts. warmup = 0 or decay = 0 turns it off.
    """
    rise = (step + 1) / warmup if step < warmup else 1.0
    fall = (steps - step) / decay if step >= steps - decay else 1.0
    return min(rise, fall)
