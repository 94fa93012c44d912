"""The classifier two-sample test (Lopez-Paz & Oquab 2017): can a classifier tell real from fake?

Half of both sets trains a small network, the other half tests it. If the two distributions are
equal, its test accuracy is 1/2 but for chance: about Gaussian with variance 1 / (4 n) for n test
samples (section 3, theorem 1). An accuracy far above rejects the claim that they are equal.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from labkit import UsageError, exercise

HIDDEN, EPOCHS, BATCH, RATE = 20, 30, 100, 1e-2
"""A network with 20 hidden units, as in the paper's section 5, trained by Adam."""


@exercise(minutes=10)
def p_value(accuracy: float, count: int) -> float:
    """Probability of an accuracy at least this high among `count` test samples, if real and fake
    are equally distributed.

    Under that hypothesis the accuracy, a share from 0 to 1, is Gaussian with mean 1/2 and variance
    1 / (4 count). One-sided: only accuracies above 1/2 speak against it. For a standard Gaussian,
    P(Z >= z) = erfc(z / sqrt(2)) / 2, with `math.erfc`.
    """
    z = (accuracy - 0.5) / math.sqrt(1 / (4 * count))
    return math.erfc(z / math.sqrt(2)) / 2


def two_sample_test(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Test accuracy (0..1) and p-value of a classifier of real (N, D) against fake (M, D) features.

    As many of each are taken as the smaller set has. Raises UsageError below four of each.
    """
    count = min(len(real), len(fake))
    if count < 4:
        raise UsageError("the two-sample test needs four images or more of each set")
    generator = torch.Generator().manual_seed(seed)
    x = torch.cat([_shuffled(part, count, generator) for part in (real, fake)])
    y = torch.arange(2 * count) // count  # 0 real, 1 fake
    training = torch.arange(2 * count) % count < count // 2  # half of each
    x = (x - x[training].mean(dim=0)) / (x[training].std(dim=0) + 1e-8)
    network = _trained(x[training], y[training], generator)
    with torch.no_grad():
        correct = network(x[~training]).squeeze(1).gt(0) == y[~training]
    accuracy = float(correct.double().mean())
    return accuracy, p_value(accuracy, int((~training).sum()))


def _shuffled(features: np.ndarray, count: int, generator: torch.Generator) -> torch.Tensor:
    order = torch.randperm(len(features), generator=generator)[:count]
    return torch.from_numpy(features)[order].float()


def _trained(x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> nn.Sequential:
    with torch.device("meta"):  # whose weights take no random numbers from the run's generator
        network = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    network = network.to_empty(device="cpu")
    for parameter in network.parameters():
        bound = 1 / math.sqrt(parameter.shape[-1])
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    optimizer = torch.optim.Adam(network.parameters(), RATE, fused=True)
    target = y.float()
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x), generator=generator).split(BATCH):
            logits = network(x[index]).squeeze(1)
            loss = F.binary_cross_entropy_with_logits(logits, target[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network
