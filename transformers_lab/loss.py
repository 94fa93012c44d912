"""The training loss (Vaswani et al. 2017, section 5.4), and the loss behind perplexity.

Label smoothing (Szegedy et al. 2016, section 7) puts a little probability on every token, so that
the target does not ask for infinite logits:

    q(v) = (1 - ε) [v = y] + ε / V        L = -Σ_v q(v) log p(v)

It makes perplexity worse and translations better, so perplexity is always measured without it.
"""

from torch import Tensor

from labkit import exercise
from transformers_lab.bpe import PAD


@exercise(minutes=20)
def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean of L over the labels that are not PAD, a scalar in nats per token.

    With log p(v) = z_v - log Σ exp z, no table of log-probabilities is needed:

        L = log Σ_v exp z_v - (1 - ε) z_y - ε mean_v z_v

    A logit may be -inf (an impossible token): with ε = 0 the loss stays finite unless it is the
    label's logit; with ε > 0 it is infinite.

    Args:
        logits: z, float (..., V).
        labels: y, int64 (...).
        smoothing: ε, from 0 to below 1.
    """
    right = logits.gather(-1, labels[..., None])[..., 0]
    loss = logits.logsumexp(dim=-1) - (1 - smoothing) * right
    if smoothing:  # 0 times -inf would be NaN
        loss = loss - smoothing * logits.mean(dim=-1)
    counted = labels != PAD
    return loss[counted].mean()


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(y) of every label in nats, 0 where it is PAD: (...) from (..., V)."""
    right = logits.gather(-1, labels[..., None])[..., 0]
    return (logits.logsumexp(dim=-1) - right).masked_fill(labels == PAD, 0.0)
