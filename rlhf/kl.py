"""How far a policy has moved: the KL divergence to its reference, estimated and exact.

    KL(pi || ref) = E_y~pi [ log pi(y) - log ref(y) ]          r = log pi(y) - log ref(y), y ~ pi

    k1 = r                    unbiased, high variance, often negative
    k2 = r^2 / 2              biased, low variance, never negative
    k3 = exp(-r) - 1 + r      unbiased, low variance, never negative

Schulman 2020, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html), where r is called
-log r. A test compares bias and variance of all three with the exact KL of small distributions.

Letters: N rows, T tokens, V vocabulary.
"""

from typing import Literal

import torch
from torch import Tensor

from labkit import exercise
from pretraining import GPT
from rlhf.preferences import Rows

Estimator = Literal["k1", "k2", "k3"]


@exercise(minutes=15)
def kl_estimate(log_pi: Tensor, log_ref: Tensor, kind: Estimator) -> Tensor:
    """An estimate of KL(pi || ref) from each sample, of the arguments' shape.

    Args:
        log_pi, log_ref: log-probabilities of the same samples, which were drawn from pi.
        kind: one of the three estimators of the module's docstring.
    Returns:
        Its mean over samples estimates the KL. It is exact where the two are equal: 0. No argument
        is changed, and gradients reach both.
    """
    r = log_pi - log_ref
    if kind == "k1":
        return r
    if kind == "k2":
        return r.square() / 2
    return torch.expm1(-r) + r  # expm1: exp(-r) - 1 loses its digits near r = 0


def token_kl(model: GPT, reference: GPT, rows: Rows) -> Tensor:
    """KL of the next token at each token of the answers, (N, T): exact, a sum over V.

    Summed over an answer that was drawn from `model` it is an unbiased estimate of the KL between
    the two distributions of answers, with less variance than log pi(y) - log ref(y).
    """
    counted = rows.mask[:, 1:]
    log_pi, log_ref = (
        each.logits(each.hidden(rows.tokens[:, :-1])[counted]).float().log_softmax(dim=-1)
        for each in (model, reference)
    )  # (n, V) each
    found = torch.zeros(rows.mask.shape, device=log_pi.device)
    found[:, 1:][counted] = (log_pi.exp() * (log_pi - log_ref)).sum(dim=-1)
    return found
