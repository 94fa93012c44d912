"""How a retriever learns: from known passages, or from a reader's likelihood.

Letters: B questions, C candidates in the batch, K candidates of one question, d dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise


@exercise(minutes=20)
def contrastive_loss(
    q: Tensor, c: Tensor, gold: Tensor, passage: Tensor, temperature: float
) -> Tensor:
    """In-batch negatives with false negatives masked (Karpukhin et al. 2020, equation 2).

        mean over i of   -log( exp(s_ii) / Σ_j exp(s_ij) ),     s_ij = cos(q_i, c_j) / temperature

    The first B candidates are the questions' own, in their order; the others are hard negatives.
    Candidate j is left out of the sum of question i when it is the same passage as i's own and
    j is not i: two questions in the batch can be about the same passage.

    Args:
        q: float (B, d), of any length.
        c: float (C, d), C >= B, of any length.
        gold: ids of the questions' passages, int64 (B,).
        passage: ids of the candidates, int64 (C,); passage[:B] equals gold.
        temperature: above 0.
    Returns:
        0-d tensor.
    """
    scores = F.normalize(q, dim=1) @ F.normalize(c, dim=1).T / temperature
    same = gold[:, None] == passage[None, :]
    own = torch.eye(len(q), len(c), dtype=torch.bool, device=q.device)
    scores = scores.masked_fill(same & ~own, -torch.inf)
    return F.cross_entropy(scores, torch.arange(len(q), device=q.device))


@exercise(minutes=20)
def distillation_loss(scores: Tensor, likelihood: Tensor, temperature: float) -> Tensor:
    """Perplexity distillation of Atlas (Izacard et al. 2022, section 2.2).

    The reader's posterior over the passages, when each is as likely before the answer is known:

        target_k = exp(likelihood_k / temperature) / Σ_j exp(likelihood_j / temperature)
        loss     = mean over questions of KL(target | softmax(scores))

    The target is a constant: no gradient flows into `likelihood`. A passage whose likelihood is
    -inf has target 0 and adds nothing to the sum. A question all of whose passages have -inf
    teaches nothing: its loss is 0, and it counts in the mean.

    Args:
        scores: of the retriever for each passage, divided by its own temperature, (B, K).
        likelihood: log p(answer | question, passage k) of the reader, (B, K).
        temperature: above 0; the smaller, the more the target prefers its best passage.
    Returns:
        0-d tensor.
    """
    known = likelihood.detach().isfinite().any(dim=1, keepdim=True)
    safe = torch.where(known, likelihood.detach(), 0.0)
    target = (safe / temperature).softmax(dim=1) * known
    log_target = (safe / temperature).log_softmax(dim=1).clamp(min=torch.finfo(scores.dtype).min)
    divergence = target * (log_target - scores.log_softmax(dim=1))
    return divergence.sum(dim=1).mean()
