"""Losses that learn from pairs of answers without a reward model: DPO's family.

    rho_w = log pi(y_w|x) - log ref(y_w|x)          log-ratio of the preferred answer; rho_l, other

    DPO     -log sigmoid( beta (rho_w - rho_l) )               Rafailov et al. 2023, equation 7
    cDPO    (1 - e) DPO(w, l) + e DPO(l, w)                    a share e of the labels is wrong
    IPO     ( rho_w/|y_w| - rho_l/|y_l| - 1/(2 tau) )^2        Azar et al. 2024, equation 17
    KTO     1 - sigmoid( +-beta (rho - z0) )                   Ethayarajh et al. 2024, equation 8
    SimPO   -log sigmoid( beta (log pi(y_w|x)/|y_w| - log pi(y_l|x)/|y_l|) - gamma )
                                                               Meng et al. 2024, equation 6
    ORPO    NLL(y_w) - lambda log sigmoid( log odds(y_w) - log odds(y_l) )
                                                               Hong et al. 2024, equations 6 and 7

The answers' log-probabilities are *sums* over tokens; where a method takes the mean it divides by
the length |y|. SimPO and ORPO have no reference. Every loss and gradient is compared with trl's.

Letters: P pairs, N answers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment import dpo_loss
from labkit import exercise

LOG_2 = 0.6931471805599453


def cdpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    smoothing: float = 0.0,
) -> Tensor:
    """Week 8's DPO loss, with a share `smoothing` of the labels taken to be wrong (cDPO).

    All are (P,). With smoothing the best margin is finite, log((1 - e) / e); without, it is not.
    """
    loss, _ = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)
    if smoothing == 0:
        return loss
    swapped, _ = dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta)
    return (1 - smoothing) * loss + smoothing * swapped


@exercise(minutes=15)
def ipo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    chosen_length: Tensor,
    rejected_length: Tensor,
    tau: float,
) -> Tensor:
    """IPO: the difference of the two log-ratios per token should be 1 / (2 tau), no more.

    Azar et al. 2024, equation 17, with each log-ratio divided by the number of tokens of its own
    answer, as trl does after asking the authors; the paper writes the sum. DPO's loss falls for
    ever as the margin grows; this one has its minimum at a finite margin.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: summed log-probabilities, (P,).
        chosen_length, rejected_length: tokens of each answer, int64 (P,).
    Returns:
        The mean of the squares over pairs, a scalar. No argument is changed.
    """
    margin = (chosen - ref_chosen) / chosen_length - (rejected - ref_rejected) / rejected_length
    return (margin - 1 / (2 * tau)).square().mean()


@exercise(minutes=25)
def kto_loss(
    ratio: Tensor,
    desirable: Tensor,
    mismatched: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO: answers are good or bad each on its own; no pairs are needed.

    Ethayarajh et al. 2024, equation 8. With rho = `ratio` and the reference point z0,
        a desirable answer costs      desirable_weight   (1 - sigmoid(beta (rho - z0)))
        an undesirable one costs      undesirable_weight (1 - sigmoid(beta (z0 - rho))).
    z0 estimates KL(pi || ref): the mean of `mismatched`, or 0 where that is negative. It is a
    constant: no gradient goes through it.

    Args:
        ratio: log pi(y|x) - log ref(y|x) of each answer, (N,).
        desirable: bool (N,). One kind may be missing.
        mismatched: the same log-ratio of answers beside the prompts of others, (M,).
    Returns:
        The mean cost of all N answers, a scalar.
    """
    z0 = mismatched.mean().clamp(min=0).detach()
    sign = torch.where(desirable, 1.0, -1.0)
    weight = torch.where(desirable, desirable_weight, undesirable_weight)
    return (weight * torch.sigmoid(-sign * beta * (ratio - z0))).mean()


@exercise(minutes=15)
def simpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_length: Tensor,
    rejected_length: Tensor,
    beta: float,
    gamma: float,
) -> Tensor:
    """SimPO: the reward is beta times the mean log-probability of a token; no reference.

    Meng et al. 2024, equation 6: -log sigmoid(difference of the two rewards - gamma), the mean over
    pairs. `gamma` is the margin by which the preferred answer should be ahead. Large differences
    must not overflow.

    Args:
        chosen, rejected: summed log-probabilities under the policy, (P,).
        chosen_length, rejected_length: tokens of each answer, int64 (P,).
    """
    margin = beta * (chosen / chosen_length - rejected / rejected_length) - gamma
    return -F.logsigmoid(margin).mean()


def log_one_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, with finite gradients at both ends (Maechler 2012).

    The branch that is not used is kept away from its pole: 0 times an infinite slope is NaN.
    """
    far, near = x.clamp(max=-LOG_2), x.clamp(min=-LOG_2)
    return torch.where(x < -LOG_2, torch.log1p(-torch.exp(far)), torch.log(-torch.expm1(near)))


@exercise(minutes=20)
def orpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_length: Tensor,
    rejected_length: Tensor,
    weight: float,
) -> Tensor:
    """ORPO: supervised fine-tuning on the preferred answers, and a penalty on the others' odds.

    Hong et al. 2024, equations 6 and 7. P(y|x) is the geometric mean of the tokens' probabilities,
    log P = log-probability / length, and log odds = log P - log(1 - P); use `log_one_minus_exp`.
        L = NLL - weight * mean over pairs of log sigmoid(log odds(y_w) - log odds(y_l))
    NLL is the mean over all tokens of the preferred answers of the batch: long answers count more.

    Args:
        chosen, rejected: summed log-probabilities under the policy, (P,).
        chosen_length, rejected_length: tokens of each answer, int64 (P,).
    """
    nll = -chosen.sum() / chosen_length.sum()
    good, bad = chosen / chosen_length, rejected / rejected_length
    log_odds = good - bad - (log_one_minus_exp(good) - log_one_minus_exp(bad))
    return nll - weight * F.logsigmoid(log_odds).mean()
