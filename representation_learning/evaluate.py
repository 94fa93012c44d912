"""The quality of a frozen representation: a linear probe and k nearest neighbours.

Both learn from the training images' representations and labels, and are tested on images that
neither they nor the encoder have seen. Letters: N rows, d dimensions, K classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise
from labkit.learning.modes import evaluating


def represent(encoder: Callable[[Tensor], Tensor], x: Tensor, batch_size: int = 500) -> Tensor:
    """Representations float (N, d) of images x, uint8 (N, 3, H, W), unaugmented.

    An encoder that is a module is put into eval mode, and back into its previous mode afterwards.
    """
    modules = [encoder] if isinstance(encoder, nn.Module) else []
    with evaluating(*modules):
        return torch.cat([encoder(part.float() / 255).float() for part in x.split(batch_size)])


@exercise(minutes=15)
def standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets, each column minus its mean and divided by its deviation. Mean and deviation are
    those of the training rows alone: the test rows must not influence them.

    A column that is constant in training is only centred: it becomes 0 in training. Constant means
    to rounding: its deviation (divided by N, not N - 1) is at most 10^-6 (1 + |mean|).

    Args:
        train: float (N, d).
        test: float (M, d).
    Returns:
        The same shapes, new tensors, differentiable in both (the statistics depend on train).
    """
    mean, deviation = train.mean(dim=0), train.std(dim=0, correction=0)
    deviation = torch.where(deviation > 1e-6 * (1 + mean.abs()), deviation, 1.0)
    return (train - mean) / deviation, (test - mean) / deviation


def fit_probe(x: Tensor, y: Tensor, classes: int, decay: float, steps: int = 100) -> nn.Linear:
    """Multinomial logistic regression: the minimum of mean cross-entropy + decay / 2 |W|^2.

    The objective is convex, so the result does not depend on the method; L-BFGS with a line
    search finds it in few passes. x float (N, d), y int64 (N,).
    """
    probe = nn.Linear(x.shape[1], classes, device=x.device)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(
        probe.parameters(), max_iter=steps, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(probe(x), y) + decay / 2 * probe.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return probe.requires_grad_(False)


DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Candidates for the probe's decay."""


def linear_probe(
    train: Tensor, y_train: Tensor, test: Tensor, y_test: Tensor, classes: int
) -> tuple[float, float]:
    """Test accuracy in % of a linear probe, and its decay.

    The decay is chosen on every fifth training row, held out; the probe is then fitted to all.
    """
    held_out = torch.arange(len(train), device=train.device) % 5 == 0
    fit, choose = standardise(train[~held_out], train[held_out])
    fits = {d: fit_probe(fit, y_train[~held_out], classes, d) for d in DECAYS}
    decay = max(DECAYS, key=lambda d: percent(fits[d](choose), y_train[held_out]))
    train, test = standardise(train, test)
    return percent(fit_probe(train, y_train, classes, decay)(test), y_test), decay


def percent(scores: Tensor, y: Tensor) -> float:
    """Share in % of rows (N, K) whose greatest score is that of class y (N,)."""
    return 100 * float((scores.argmax(dim=1) == y).float().mean())


@exercise(minutes=25)
def knn_scores(
    train: Tensor, y_train: Tensor, queries: Tensor, classes: int, k: int, temperature: float
) -> Tensor:
    """Votes of the k nearest training rows (Wu et al. 2018, section 3.4).

    Nearest by cosine similarity s; neighbour i votes for its class with weight exp(s_i / t). The
    votes of a query are divided by their sum.

    Args:
        train: float (N, d).
        y_train: int64 (N,).
        queries: float (M, d).
        k: 1 <= k <= N.
        temperature: t > 0, however small: e^(s / t) may overflow, but the votes must not.
    Returns:
        float (M, K), rows summing to 1, of the dtype and on the device of `queries`, and
        differentiable in train and queries.
    """
    similarity = F.normalize(queries, dim=1) @ F.normalize(train, dim=1).T  # (M, N)
    nearest, index = similarity.topk(k, dim=1)
    weight = (nearest / temperature).softmax(dim=1)
    votes = torch.zeros(len(queries), classes, dtype=weight.dtype, device=weight.device)
    return votes.scatter_add_(1, y_train[index], weight)


def knn_accuracy(
    train: Tensor,
    y_train: Tensor,
    test: Tensor,
    y_test: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.1,
) -> float:
    """Test accuracy in % of the k nearest neighbours' vote; representations are centred first."""
    mean = train.mean(dim=0)
    scores = [
        knn_scores(train - mean, y_train, part - mean, classes, min(k, len(train)), temperature)
        for part in test.split(1000)
    ]
    return percent(torch.cat(scores), y_test)
