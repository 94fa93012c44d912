"""Losses that bring a picture near its own caption and away from those of other pictures.

    t = exp(log scale)      s_ij = t cos(image_i, text_j)

    InfoNCE     softmax over the captions of a batch for each picture, and over its pictures for
                each caption (Radford et al. 2021, figure 3)
    SigLIP      every pair by itself: does it belong together or not? (Zhai et al. 2023, eq. 1)

Two pictures of one batch can show the same. Then the caption of either is true of both, and calling
the pair wrong would teach nonsense. `meaning` names such pictures by equal numbers; their pairs are
left out.

Letters: N pairs in a batch, d dimensions of the common space.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise


@exercise(minutes=10)
def alike(meaning: Tensor) -> Tensor:
    """Which pairs of a batch must be left out: pictures i != j that mean the same.

    Args:
        meaning: int64 (N,), equal numbers for pictures that show the same.
    Returns:
        bool (N, N), on the same device; False on the diagonal, whose pairs are the right ones.
    """
    same = meaning[:, None] == meaning[None, :]
    return same.fill_diagonal_(False)


@exercise(minutes=25)
def infonce(
    image: Tensor, text: Tensor, log_scale: Tensor, meaning: Tensor | None = None
) -> Tensor:
    """CLIP's symmetric contrastive loss.

    With s_ij = exp(log_scale) cos(image_i, text_j), the mean over i of
        -log( exp(s_ii) / sum over j of exp(s_ij) )      each picture finds its caption
    and of
        -log( exp(s_ii) / sum over j of exp(s_ji) )      each caption finds its picture,
    and of these two the mean.

    Args:
        image, text: (N, d), N >= 1, of any length: they are brought to unit length here.
        log_scale: 0-d, the logarithm of the logit scale; it is learned.
        meaning: int64 (N,); pairs with `alike(meaning)` take no part in any sum. None: all do.
    Returns:
        0-d tensor; all three arguments get their gradients. Finite for any finite scale.
    """
    logits = log_scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    if meaning is not None:
        logits = logits.masked_fill(alike(meaning), -torch.inf)
    own = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@exercise(minutes=20)
def siglip(
    image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor, meaning: Tensor | None = None
) -> Tensor:
    """The pairwise sigmoid loss.

    With z_ij = 1 for i = j and -1 otherwise, and s_ij = exp(log_scale) cos(image_i, text_j) + bias,
        -1/N  sum over i and j of  log σ(z_ij s_ij).
    The sum is divided by the pictures N and not by the pairs N². No softmax couples the pairs, so a
    large batch can be computed in pieces. `bias` starts far below 0, since nearly all pairs are
    wrong ones.

    Args:
        image, text, log_scale: see `infonce`.
        bias: 0-d, learned.
        meaning: int64 (N,); pairs with `alike(meaning)` take no part. None: all do.
    Returns:
        0-d tensor; all arguments but the last get their gradients. Finite however large s_ij is.
    """
    logits = log_scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T + bias
    signs = 2 * torch.eye(len(image), dtype=logits.dtype, device=logits.device) - 1
    losses = -F.logsigmoid(signs * logits)
    if meaning is not None:
        losses = losses.masked_fill(alike(meaning), 0.0)
    return losses.sum() / len(image)


@exercise(minutes=5)
def clamp_logit_scale(log_scale: nn.Parameter, most: float) -> None:
    """Keep the logit scale exp(log_scale) at `most` or below, by changing the parameter in place.

    To be called after each optimiser step (Radford et al. 2021, section 2.5: 100). Clamping inside
    the loss instead would leave a parameter above the limit without a gradient, for ever. A scale
    below the limit stays as it is.
    """
    with torch.no_grad():
        log_scale.clamp_(max=math.log(most))
