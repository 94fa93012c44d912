"""White-box attacks: FGSM (Goodfellow et al. 2015) and PGD with restarts (Madry et al. 2018).

An attack looks for a picture x' within epsilon of x, and in [0, 1], that the model gets wrong.
Epsilon is in pixel units: 0.3 of the range from black to white. A model that standardises its input
does so inside.

Letters: B batch, C channels, H height, W width, K classes. Images are float (B, C, H, W).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import UsageError, exercise

Norm = Literal["linf", "l2"]


def check(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> None:
    """Raise UsageError when an attack of these arguments would measure something else.

    That is: images outside [0, 1], a negative epsilon, any part of the model in training mode, or
    labels that are not classes of the model.
    """
    if not x.is_floating_point() or (x.numel() and not (x.min() >= 0 and x.max() <= 1)):
        raise UsageError("images must be float in [0, 1]; divide bytes by 255")
    if not epsilon >= 0:
        raise UsageError(f"epsilon must be 0 or more, in pixel units, got {epsilon}")
    if any(module.training for module in model.modules()):
        raise UsageError("the model is in training mode; call model.eval() before an attack")
    if len(x) != len(y):
        raise UsageError(f"{len(x)} images and {len(y)} labels: there must be one for each")
    if len(x):
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        if y.min() < 0 or y.max() >= classes:
            raise UsageError(f"labels go from 0 to {classes - 1}, got {int(y.min())} to {y.max()}")


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of each picture's cross-entropy by its pixels, (B, C, H, W)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        # The sum, not the mean: a picture's gradient must not depend on the size of the batch.
        logits = model(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # bf16 is too coarse
        loss = F.cross_entropy(logits, y, reduction="sum")
        return torch.autograd.grad(loss, x)[0]


@exercise(minutes=15)
def project(delta: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """The nearest perturbation of norm epsilon or less, for each picture of delta (B, C, H, W).

    linf: each number is clipped to [-epsilon, epsilon]. l2: a picture whose length over all its
    numbers is above epsilon is scaled to length epsilon; others stay as they are, one of length 0
    too. delta is not changed in place.
    """
    if norm == "linf":
        return delta.clamp(-epsilon, epsilon)
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return delta * (epsilon / length.clamp(min=1e-30)).clamp(max=1)


@exercise(minutes=15)
def ascent(gradient: Tensor, norm: Norm) -> Tensor:
    """Direction of steepest ascent of norm 1, for each picture of gradient (B, C, H, W).

    linf: the sign of each number. l2: each picture's gradient divided by its length over all its
    numbers; where that is 0 the direction is 0, not NaN. gradient is not changed in place.
    """
    if norm == "linf":
        return gradient.sign()
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return gradient / length.clamp(min=1e-30)


@exercise(minutes=15)
def fgsm(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015, section 4): (B, C, H, W) in [0, 1].

        x' = clip(x + epsilon sign(grad_x L(x, y)), 0, 1)

    First `check(model, x, y, epsilon)` refuses what cannot be attacked. `gradient` gives grad_x L.
    x is not changed in place, and the result needs no gradient.
    """
    check(model, x, y, epsilon)
    return (x + epsilon * gradient(model, x, y).sign()).clamp(0, 1)


def random_start(
    x: Tensor, epsilon: float, norm: Norm, generator: torch.Generator | None = None
) -> Tensor:
    """A random perturbation for each picture: uniform in the cube, or in the ball for l2."""
    if norm == "linf":
        noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return (2 * noise - 1) * epsilon
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    radius = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device, dtype=x.dtype)
    numbers = max(1, x[0].numel()) if len(x) else 1
    return ascent(noise, "l2") * epsilon * radius ** (1 / numbers)


@exercise(minutes=30)
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    steps: int,
    step_size: float,
    norm: Norm = "linf",
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient descent (Madry et al. 2018, eq. 3): (B, C, H, W) in [0, 1].

    It begins at the perturbation `start` (0 if None). Each step moves by
    step_size * `ascent(gradient, norm)`, then `project`s the perturbation, then clips the picture
    to [0, 1]. The start is projected and clipped in the same way before the first step. After each
    step, pictures that are wrong stay as they are; only the others move on. First
    `check(model, x, y, epsilon)`. UsageError also for fewer than one step. x and start are not
    changed in place.
    """
    check(model, x, y, epsilon)
    if steps < 1:
        raise UsageError(f"PGD takes one step or more, got steps={steps}")
    delta = torch.zeros_like(x) if start is None else start
    adversarial = (x + project(delta, epsilon, norm)).clamp(0, 1)
    active = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        if not len(active):
            break
        now, clean, label = adversarial[active], x[active], y[active]
        moved = now + step_size * ascent(gradient(model, now, label), norm)
        now = (clean + project(moved - clean, epsilon, norm)).clamp(0, 1)
        adversarial[active] = now
        with torch.no_grad():
            active = active[model(now).argmax(dim=1) == label]
    return adversarial


@exercise(minutes=15)
def worst_case(correct: Tensor) -> float:
    """Accuracy in percent under several attacks, from correct, bool (attacks, pictures).

    A picture counts as right only if it is right under every attack: the attacker keeps, for each
    picture, the attack that worked. 0 pictures raise UsageError.
    """
    if not correct.shape[1]:
        raise UsageError("no pictures: accuracy needs one or more")
    return 100 * correct.all(dim=0).float().mean().item()


def percent(correct: Tensor) -> float:
    """Share of true values of a bool tensor, in percent."""
    return 100 * correct.float().mean().item()


def predicted(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which pictures are right, bool (B,)."""
    with torch.no_grad():
        return model(x).argmax(dim=1) == y


def pgd_correct(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    steps: int,
    restarts: int,
    seed: int,
    norm: Norm = "linf",
    batch_size: int = 500,
) -> Tensor:
    """Which pictures stay right under PGD from random starts, bool (restarts, B).

    The step is 2.5 epsilon / steps (Madry et al. 2018): far enough to cross the ball. A picture
    that one restart has fooled is not attacked again and counts as wrong there too.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    rows = torch.zeros(restarts, len(x), dtype=torch.bool, device=x.device)
    left = torch.arange(len(x), device=x.device)
    for row in rows:
        for some in left.split(batch_size):
            noise = random_start(x[some], epsilon, norm, generator)
            size = 2.5 * epsilon / steps
            found = pgd(model, x[some], y[some], epsilon, steps, size, norm, noise)
            row[some] = predicted(model, found, y[some])
        left = left[row[left]]
    return rows
