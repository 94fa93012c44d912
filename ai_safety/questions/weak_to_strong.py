"""Can a weak supervisor bring out what a stronger model could do? (Burns et al. 2023)

A small network that saw few digits labels many others, with its mistakes; week 3's CNN learns from
those labels alone. The ceiling is the same CNN with TRUE labels of the same digits.

    gap recovered = (weak to strong - weak) / (ceiling - weak)              section 3
    loss = (1 - a) CE(f, weak labels) + a CE(f, what f itself says)         section 4.3.2

Letters: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ai_safety.measures import gap_recovered
from labkit import exercise
from labkit.data import batch_indices
from labkit.learning.modes import evaluating
from pytorch_mastery import CNN, one_cycle


@exercise(minutes=20)
def confidence_loss(logits: Tensor, weak: Tensor, alpha: float) -> Tensor:
    """The auxiliary confidence loss of Burns et al. 2023, section 4.3.2, for K classes.

    (1 - alpha) times the cross-entropy to the weak labels, plus alpha times the cross-entropy to
    the model's own prediction: the class of its largest logit, hard, as a constant. No gradient
    goes through that target. With alpha = 0 it is plain cross-entropy.

    Args:
        logits: of the strong model, (B, K).
        weak: probabilities of the weak supervisor, (B, K), each row summing to 1.
        alpha: from 0 to 1.
    Returns:
        The mean over the batch, a scalar. No argument is changed.
    """
    logps = logits.log_softmax(dim=-1)
    own = logits.argmax(dim=-1)
    to_weak = -(weak * logps).sum(dim=-1)
    to_own = -logps.gather(-1, own[:, None]).squeeze(-1)
    return ((1 - alpha) * to_weak + alpha * to_own).mean()


@exercise(minutes=10)
def targets(kind: str, weak: Tensor, true: Tensor, classes: int) -> Tensor:
    """What a strong model of one kind learns from, as rows of probabilities: float (B, K).

    A model of kind "ceiling" learns from the true labels, and each other kind ("naive",
    "confident") from the supervisor's. A ceiling that learned from weak labels would lie too low,
    and the gap recovered near 1 for any method.

    Args:
        weak: classes that the supervisor gave, int64 (B,).
        true: true classes, int64 (B,).
        classes: K.
    """
    return F.one_hot(true if kind == "ceiling" else weak, classes).float()


def gap_over_repeats(
    weak: Sequence[float], reached: Sequence[float], ceiling: Sequence[float], draws: int = 2000
) -> tuple[float, float, float]:
    """The gap recovered from mean accuracies over repeats, with its 95 % bootstrap interval.

    Repeats are resampled whole, with replacement. The ratio is taken of means: in a single repeat
    the gap may be small, and its ratio enormous.

    Returns:
        The gap, and the lower and the upper end.
    Raises:
        ValueError for fewer than two repeats, or a mean ceiling that is not above the mean weak.
    """
    if len(weak) < 2:
        raise ValueError(f"{len(weak)} repeat(s): an interval needs two or more")
    each = np.array([weak, reached, ceiling], float)  # (3, repeats)
    gap = gap_recovered(*each.mean(axis=1).tolist())
    chosen = np.random.default_rng(0).integers(len(weak), size=(draws, len(weak)))
    below, middle, above = each[:, chosen].mean(axis=2)  # (draws,) each
    kept = above > below
    low, high = np.quantile((middle - below)[kept] / (above - below)[kept], [0.025, 0.975])
    return gap, float(low), float(high)


class Weak(nn.Module):
    """A small network on pixels: (B, C, H, W) in [0, 1] -> (B, K)."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images)
        return out


def train_weak(
    model: Weak, images: Tensor, labels: Tensor, steps: int, lr: float, seed: int
) -> None:
    """Train the supervisor on true labels, in place; batches of at most 64."""
    adam = torch.optim.Adam(model.parameters(), lr)
    size = min(64, len(images))
    for step in range(steps):
        adam.param_groups[0]["lr"] = one_cycle(step, steps, lr)
        index = torch.tensor(batch_indices(len(images), size, step, seed), device=images.device)
        loss = F.cross_entropy(model(images[index]), labels[index])
        adam.zero_grad()
        loss.backward()
        adam.step()


def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Softmax of a model's logits, (N, K), a thousand images at a time."""
    with evaluating(model):
        return torch.cat([model(part).float().softmax(dim=-1) for part in images.split(1000)])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images that are classified rightly."""
    return (probabilities(model, images).argmax(dim=-1) == labels).float().mean().item()


def strong(channels: int, classes: int, width: int, mean: list[float], std: list[float]) -> CNN:
    """Week 3's CNN, not trained."""
    return CNN(channels, classes, width, mean, std)
