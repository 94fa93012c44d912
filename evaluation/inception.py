"""The Inception score (Salimans et al. 2016, section 4), by whatever classifier there is.

    IS = exp( E_x KL( p(y|x) || p(y) ) ),   p(y) = E_x p(y|x)

High when each image is clearly of one class and all classes are equally frequent: from 1 to the
number of classes. It never looks at real images, so it sees neither copies nor a lack of variety
within a class.
"""

import numpy as np
from scipy.special import rel_entr

from labkit import exercise


@exercise(minutes=15)
def inception_score(probabilities: np.ndarray) -> float:
    """exp of the mean divergence KL(p(y|x) || p(y)) over the images, in nats.

    p(y) is the mean of the rows. A class of probability 0 adds 0 to the divergence of its row, also
    when no row has that class: `scipy.special.rel_entr` is p log(p / q) with these cases right.

    Args:
        probabilities: float64 (N, K), each row sums to 1.
    Returns:
        1..K.
    """
    marginal = probabilities.mean(axis=0)
    return float(np.exp(rel_entr(probabilities, marginal).sum(axis=1).mean()))
