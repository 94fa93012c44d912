"""Stochastic gradient Langevin dynamics: samples from an energy by its gradient alone.

    x  <-  x - (alpha / 2) dE/dx + sigma * noise,   noise from N(0, 1)        (JEM, section 2)

With sigma = sqrt(alpha) and small alpha the chain ends up in p(x) = exp(-E(x)) / Z (Welling & Teh
2011). JEM and most work on pictures choose both freely: alpha = 2, sigma = 0.01. That is the same
dynamics for the energy E / T at the temperature T = sigma^2 / alpha = 1 / 20,000: the chain nearly
follows the gradient, and the energy it samples from is E / T, not E. `temperature` computes T.

Grathwohl et al. 2019 (JEM), section 3; Du & Mordatch 2019 (the replay buffer); Yang & Ji 2021
(JEM++: start from a Gaussian of each class).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from labkit import exercise


def temperature(step_size: float, noise: float | None) -> float:
    """T = sigma^2 / alpha, at which the dynamics sample from exp(-E / T); 1 when noise is None."""
    return 1.0 if noise is None else noise**2 / step_size


@exercise(minutes=15)
def sgld_step(x: Tensor, gradient: Tensor, step_size: float, noise: float | None) -> Tensor:
    """One step of the dynamics, x - (step_size / 2) gradient + noise * z, z fresh from N(0, 1).

    A noise of None is the deviation that samples at temperature 1, sqrt(step_size): the *variance*
    of the noise is the step size. A noise of 0 is gradient descent on the energy. Every number of
    every example has its own z, drawn from the global generator. x is not changed in place: the
    replay buffer still holds it.

    Args:
        x: float (B, ...).
        gradient: of the energy at x, the same shape.
        step_size: alpha > 0.
        noise: sigma >= 0, or None.
    Returns:
        A new tensor of the same shape and dtype.
    """
    sigma = step_size**0.5 if noise is None else noise
    return x - step_size / 2 * gradient + sigma * torch.randn_like(x)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Context: the model is in evaluation mode, and its weights collect no gradients; but its
    input does. Afterwards all is as before.
    """
    modes = [(module, module.training) for module in model.modules()]
    needed = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, before in needed:
            weight.requires_grad_(before)


@exercise(minutes=20)
def sample(
    energy: nn.Module,
    x: Tensor,
    steps: int,
    step_size: float,
    noise: float | None,
    bound: float | None = None,
) -> Tensor:
    """Move chains by `steps` steps of `sgld_step`, each with the gradient at the newest x.

    The gradient is that of the sum of energies, so that each example gets its own. After every step
    x is clamped to [-bound, bound], when a bound is given.

    Three things must not happen. The weights must not collect a gradient, and the model must not
    stay in training mode, where dropout would make it another model in every step: the whole loop
    runs inside `frozen(energy)`, which sees to both and puts everything back. And the result must
    not be connected to the starting point, or one step to the next: the loss is not differentiated
    through the sampler.

    It works also when the caller has switched gradients off. The starting point is not changed.

    Args:
        energy: (B, ...) -> (B,).
        x: float (B, ...), where the chains start.
        steps: K >= 0; with 0 the start, clamped, comes back.
        step_size, noise: see `sgld_step`.
    Returns:
        The ends of the chains, the same shape, without a gradient.
    """
    x = clamped(x.detach(), bound)
    with frozen(energy), torch.enable_grad():
        for _ in range(steps):
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(energy(x).sum(), x)
            x = clamped(sgld_step(x.detach(), gradient, step_size, noise), bound)
    return x


def clamped(x: Tensor, bound: float | None) -> Tensor:
    """x inside [-bound, bound]; x itself when bound is None."""
    return x if bound is None else x.clamp(-bound, bound)


class ReplayBuffer:
    """Chains that continue where they were left (Du & Mordatch 2019, section 3.1).

    A chain of K steps from noise would not get far. Kept for many updates, it moves on from its
    last end while the energy under it changes slowly. A few start anew each time, so that no mode
    is forgotten.
    """

    def __init__(self, size: int, restart: float, start: Callable[[int], Tensor]) -> None:
        """`start(n)` gives n new starting points (n, ...); the buffer begins with `size` of them.

        With a restart of 1 every chain starts anew in each step.
        """
        self.restart, self.start = restart, start
        self.chains = start(size)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Starting points of n different chains (n, ...), and their places (n,) in the buffer.

        At most as many as the buffer has. Each is replaced by a new start with probability
        `restart`; the buffer itself is not changed.
        """
        place = torch.randperm(len(self.chains))[:n].to(self.chains.device)
        anew = torch.rand(len(place)) < self.restart
        chosen = self.chains[place]
        if count := int(anew.sum()):
            chosen[anew.to(chosen.device)] = self.start(count)
        return chosen, place

    def put(self, place: Tensor, ends: Tensor) -> None:
        """Keep the ends of the chains at those places."""
        self.chains[place] = ends

    def state_dict(self) -> dict[str, Any]:
        return {"chains": self.chains}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chains.copy_(state["chains"])


def gaussian_start(x: Tensor, y: Tensor, classes: int) -> Callable[[int], Tensor]:
    """Starting points from a Gaussian fitted to the examples of each class (Yang & Ji 2021).

    Args:
        x: float (N, ...), at least two of each class.
        y: int64 (N,).
    Returns:
        n -> (n, ...): class c in equal shares at random, mean plus a random combination of that
        class's deviations from it, which has exactly their covariance and needs no matrix root.
    """
    members = [x[y == c] for c in range(classes)]
    means = [each.mean(dim=0) for each in members]
    # A thousand examples span the covariance well enough, and a draw is one product with them.
    spans = [
        (each[:1000] - mean).flatten(1) / max(1, len(each[:1000]) - 1) ** 0.5
        for each, mean in zip(members, means, strict=True)
    ]

    def start(n: int) -> Tensor:
        which = torch.randint(classes, (n,))
        points = torch.empty(n, *x.shape[1:], device=x.device)
        for c in which.unique().tolist():
            chosen = (which == c).nonzero().flatten().to(x.device)
            weights = torch.randn(len(chosen), len(spans[c]), device=x.device)
            points[chosen] = means[c] + (weights @ spans[c]).view(-1, *x.shape[1:])
        return points

    return start
