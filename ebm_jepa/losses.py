"""The losses that train an energy.

Maximum likelihood needs the gradient of -log p(x) = E(x) + log Z. The normaliser's part is an
expectation over the *model*:

    d/dw (-log p(x)) = dE(x)/dw - mean over x' from p of dE(x')/dw

so energies of data are lowered and those of the model's own samples raised: contrastive divergence
(Hinton 2002). Denoising score matching (Vincent 2011) needs no samples and no Z: it compares
gradients with respect to the input, in which Z does not occur.

Letters: B batch.
"""

import torch
from torch import Tensor, nn

from labkit import RunFailed, exercise

DIVERGED = 1e3
"""A gap of the mean energies of so many nats, either way, is a training that has diverged."""


@exercise(minutes=15)
def contrastive_divergence(real: Tensor, fake: Tensor, penalty: float = 0.0) -> Tensor:
    """mean E(real) - mean E(fake) + penalty * (mean E(real)^2 + mean E(fake)^2).

    Minimised, it lowers the energy of the data and raises that of the samples. Its value is no
    measure of progress: it hovers around 0 all the time. The penalty keeps energies near 0, where
    the difference alone leaves them free to drift (Du & Mordatch 2019, section 3.3). There need
    not be as many samples as data.

    Args:
        real: energies of data (B,).
        fake: energies of samples (B',).
        penalty: 0 or more.
    Returns:
        0-d tensor, differentiable in both.
    """
    size = real.square().mean() + fake.square().mean()
    return real.mean() - fake.mean() + penalty * size


@exercise(minutes=25)
def denoising_score_matching(energy: nn.Module, x: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Denoising score matching of an energy (Vincent 2011, section 4.3), times sigma^2.

    Noise the data, y = x + sigma * noise. The score of the model is s(y) = -dE(y)/dy. The score of
    the noising density of y around x is (x - y) / sigma^2, and on average over x it is the score of
    the noised data, which the model shall learn:

        loss = sigma^2 / 2 * mean over examples of |s(y) - (x - y) / sigma^2|^2,

    |.|^2 summed over all numbers of an example. The factor sigma^2 keeps the loss of about the same
    size for every sigma. It is 0 for no model, since the noise cannot be known from y.

    The loss contains a gradient and is itself differentiated with respect to the weights, so the
    inner gradient must keep its graph. It works whether or not x requires a gradient, and changes
    neither x nor noise.

    Args:
        energy: (B, ...) -> (B,).
        x: float (B, ...).
        noise: from N(0, 1), the same shape.
        sigma: > 0.
    Returns:
        0-d tensor, differentiable in the weights of the energy.
    """
    y = (x + sigma * noise).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(y).sum(), y, create_graph=True)
    difference = -gradient + noise / sigma  # minus (x - y) / sigma^2
    return sigma**2 / 2 * difference.square().flatten(1).sum(dim=1).mean()


def check_energies(real: Tensor, fake: Tensor, step: int, group: str) -> None:
    """Raises RunFailed when the mean energies of data and samples are more than DIVERGED apart, or
    not numbers: what follows would be noise, and a checkpoint would keep it.

    Args: mean energies, 0-d; the step; and the method's group of settings, for the advice.
    """
    gap = float(real) - float(fake)
    if not abs(gap) <= DIVERGED:  # NaN compares as false
        raise RunFailed(
            f"the energies diverged at step {step}: {float(real):.4g} on data and "
            f"{float(fake):.4g} on samples; try a lower {group}.lr, more {group}.langevin_steps "
            f"or a higher {group}.energy_penalty"
        )
