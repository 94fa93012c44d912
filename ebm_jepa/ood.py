"""What a classifier with an energy can do besides classifying: tell strangers, and be calibrated.

Letters: N examples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebm_jepa.energy import energy_of_logits
from ebm_jepa.jem import BOUND, to_signed
from ebm_jepa.sgld import frozen
from labkit.learning.modes import evaluating


def logits_of(network: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """float32 (N, K) of uint8 pictures (N, C, H, W)."""
    with evaluating(network):
        return torch.cat([network(to_signed(x)).float() for x in images.split(batch_size)])


def log_density(logits: Tensor) -> Tensor:
    """log p(x) up to a constant, logits (N, K) -> (N,): JEM's score (section 5.3)."""
    return -energy_of_logits(logits)


def confidence(logits: Tensor) -> Tensor:
    """Largest class probability, logits (N, K) -> (N,): the score without an energy."""
    return logits.softmax(dim=1).amax(dim=1)


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Area under the ROC curve: the probability that an example from inside has the higher score
    than one from outside; equal scores count one half. Scores (N,) and (M,), result in 0..1.

    It is the Mann-Whitney statistic: count, for every score from inside, those from outside that
    are below. Sorted, that takes two binary searches instead of N M comparisons.
    """
    ordered = outside.double().sort().values
    scores = inside.double()
    below = torch.searchsorted(ordered, scores, right=False)
    not_above = torch.searchsorted(ordered, scores, right=True)
    return float((below + not_above).double().mean() / 2 / len(ordered))


def calibration_error(logits: Tensor, y: Tensor, bins: int = 15) -> float:
    """Expected calibration error in % (Guo et al. 2017, section 2).

    Predictions are put into `bins` equal intervals by their confidence, open on the left. The error
    is the distance of mean confidence from accuracy in each, weighted by its share of the
    predictions.

    Args: logits (N, K), y int64 (N,).
    """
    sure, right = confidence(logits).double(), (logits.argmax(dim=1) == y).double()
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64, device=sure.device)
    gap.index_add_(0, place, sure - right)  # sum of confidence minus sum of hits
    return 100 * float(gap.abs().sum()) / len(y)


def attack(network: nn.Module, x: Tensor, y: Tensor, radius: float, steps: int = 10) -> Tensor:
    """Projected gradient ascent on the cross-entropy (Madry et al. 2018), from a random start.

    Args:
        x: float (N, C, H, W) in [-1, 1].
        radius: largest change of a pixel, in the units of x (twice those of grey levels 0..1).
    Returns:
        The changed pictures, inside [-1, 1] and within the radius.
    """
    low, high = (x - radius).clamp(min=-BOUND), (x + radius).clamp(max=BOUND)
    moved = torch.lerp(low, high, torch.rand_like(x))
    with frozen(network), torch.enable_grad():
        for _ in range(steps):
            moved.requires_grad_()
            loss = F.cross_entropy(network(moved).float(), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() + 2.5 * radius / steps * gradient.sign()
            moved = moved.clamp(low, high)
    return moved


def robust_accuracy(network: nn.Module, images: Tensor, y: Tensor, radius: float) -> float:
    """Accuracy in % on attacked pictures; radius as a share of the grey scale from 0 to 1."""
    hits = 0
    for x, labels in zip(images.split(250), y.split(250), strict=True):
        moved = attack(network, to_signed(x), labels, 2 * radius)
        with evaluating(network):
            hits += int((network(moved).argmax(dim=1) == labels).sum())
    return 100 * hits / len(y)


Score = Callable[[Tensor], Tensor]
"""Logits (N, K) -> scores (N,), higher inside the distribution."""
SCORES: dict[str, Score] = {"": log_density, "_softmax": confidence}
"""Scores by the ending that their metric has: ood_auroc and ood_auroc_softmax."""
