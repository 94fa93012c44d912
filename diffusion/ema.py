"""Exponential moving average of weights: samples come from an average of the last networks.

The weights after the last step are noisy. A diffusion loss averages over so many noise levels that
it does not show this; samples do.
"""

from labkit import exercise
from labkit.learning.ema import Averaged, M


@exercise(minutes=10)
def ema_decay(updates: int, limit: float) -> float:
    """Weight of the old average after `updates` earlier updates.

    min(limit, (1 + updates) / (10 + updates)): during this warm-up a plain mean over roughly the
    last tenth, then the fixed limit. If it were the limit from the start, the random initial
    weights would still have weight limit^n after n updates: 0.9999^2000 is 82 %.
    """
    return min(limit, (1 + updates) / (10 + updates))


class EMA(Averaged[M]):
    """The averaged copy of a model, at the decay of `ema_decay`."""

    def __init__(self, model: M, limit: float = 0.999) -> None:
        super().__init__(model, lambda updates: ema_decay(updates, limit))
