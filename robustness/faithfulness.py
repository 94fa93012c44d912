"""Does an explanation say something about the model? Two checks that need no opinion.

Sanity check (Adebayo et al. 2018): when the layers are randomised from the top down, an explanation
of the trained model must change. Deletion (Petsiuk et al. 2018): when the pixels it calls important
are removed first, the probability of the class must fall faster than in random order.

Letters: B batch, C channels, H height, W width, N numbers, S steps.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from labkit import UsageError, exercise


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 to N along the last dimension; equal values share the mean of their ranks."""
    order = values.sort(dim=-1).values.contiguous()
    below = torch.searchsorted(order, values.contiguous(), right=False)
    upto = torch.searchsorted(order, values.contiguous(), right=True)
    return (below + upto + 1).to(torch.float64) / 2


@exercise(minutes=20)
def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of each row of a with the same row of b: (B, N) twice -> (B,).

    That is the ordinary (Pearson) correlation of their `ranks`, float64. It is 0 where all numbers
    of a row are equal. a and b are not changed in place.
    """
    p, q = ranks(a), ranks(b)
    p, q = p - p.mean(dim=1, keepdim=True), q - q.mean(dim=1, keepdim=True)
    scale = (p.square().sum(dim=1) * q.square().sum(dim=1)).sqrt()
    return (p * q).sum(dim=1) / scale.clamp(min=1e-12)


def randomised(model: nn.Module, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """The model with its last layer drawn anew, then its last two, up to all of them.

    Each item is the name of the layer that was drawn last, and the model, which is one copy that
    changes; the model itself stays as it is.
    """
    model = copy.deepcopy(model)
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    ]
    for i, (name, layer) in enumerate(reversed(layers)):
        with torch.random.fork_rng():
            torch.manual_seed(seed + i)
            layer.reset_parameters()  # type: ignore[operator]
        yield name, model


@exercise(minutes=25)
def deletion_curve(
    model: nn.Module, x: Tensor, y: Tensor, importance: Tensor, steps: int
) -> Tensor:
    """Probability of class y as pixels turn black, the most important first: (B, steps + 1).

    Column k has round(k H W / steps) pixels of each picture black in all channels (as Python
    rounds), so that the first column is of the whole picture and the last of a black one. Of
    equally important pixels, the first in reading order goes first. UsageError for steps < 1 or
    more steps than pixels. x is not changed in place.

    Args:
        x: (B, C, H, W).
        y: (B,).
        importance: (B, H, W).
    """
    pixels = x.shape[2] * x.shape[3]
    if not 1 <= steps <= pixels:
        raise UsageError(f"steps goes from 1 to the {pixels} pixels, got {steps}")
    order = importance.flatten(1).argsort(dim=1, descending=True, stable=True)
    place = order.argsort(dim=1).view(len(x), 1, *x.shape[2:])  # when each pixel goes
    column = []
    for k in range(steps + 1):
        left = x * (place >= round(k * pixels / steps))
        with torch.no_grad():
            column.append(model(left).softmax(dim=1).gather(1, y[:, None])[:, 0])
    return torch.stack(column, dim=1)


def area(curve: Tensor) -> Tensor:
    """Mean height of each curve, (B, S) -> (B,), by the trapezoid rule; its width counts as 1."""
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)
