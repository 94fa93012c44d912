"""Measuring a trained model under attack: metrics and pictures."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit import Run
from labkit.learning.modes import evaluating
from labkit.show.pictures import new_figure
from robustness import attacks, explanations
from robustness.square import square_attack


@dataclass(frozen=True)
class Attacks:
    """How strongly the test attacks; the names are those of `Config`."""

    epsilon: float
    steps: int
    restarts: int
    queries: int
    square_images: int
    seed: int


def percent(correct: Tensor) -> float:
    """Share of true values of a bool tensor, in percent."""
    return 100 * correct.float().mean().item()


def held_out(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> float:
    """Accuracy in percent under ten steps of PGD from one random start."""
    with evaluating(model):
        return attacks.worst_case(attacks.pgd_correct(model, x, y, epsilon, 10, 1, seed=0))


def measure(
    run: Run, model: nn.Module, x: Tensor, y: Tensor, chosen: Tensor, how: Attacks
) -> dict[str, float]:
    """Accuracy in percent on all test images x, and on the `chosen` ones under each attack.

    The Square attack, which needs thousands of queries, sees the first `square_images` of the
    chosen; `pgd_subset_accuracy` is PGD's on the same images. White-box below black-box is what a
    model without masked gradients shows.
    """
    with torch.no_grad():
        clean = torch.cat([model(part).argmax(dim=1) for part in x.split(500)]) == y
    x, y = x[chosen], y[chosen]
    fgsm = torch.cat(
        [
            attacks.predicted(model, attacks.fgsm(model, a, b, how.epsilon), b)
            for a, b in zip(x.split(500), y.split(500), strict=True)
        ]
    )
    pgd = attacks.pgd_correct(model, x, y, how.epsilon, how.steps, how.restarts, how.seed)
    few = min(how.square_images, len(x))
    found = square_attack(model, x[:few], y[:few], how.epsilon, how.queries, how.seed)
    square = attacks.predicted(model, found, y[:few])
    strong = attacks.pgd_correct(model, x[:few], y[:few], 1.0, how.steps, 1, how.seed)
    pictures(run, model, x[:8], y[:8], how)
    curve(run, model, x[:few], y[:few], how)
    return {
        "pgd_accuracy": attacks.worst_case(pgd),
        "fgsm_accuracy": percent(fgsm),
        "clean_accuracy": percent(clean),
        "square_accuracy": percent(square),
        "pgd_subset_accuracy": attacks.worst_case(pgd[:, :few]),
        "masking": attacks.worst_case(pgd[:, :few]) - percent(square),
        "unbounded_accuracy": attacks.worst_case(strong),
    }


def pictures(run: Run, model: nn.Module, x: Tensor, y: Tensor, how: Attacks) -> None:
    """attacked.png: images, the same attacked, and where the gradient is large for each."""
    size = 2.5 * how.epsilon / how.steps
    attacked = attacks.pgd(model, x, y, how.epsilon, how.steps, size)
    rows = [x, attacked]
    for images in (x, attacked):
        heat = explanations.integrated_gradients(model, images, y, torch.zeros_like(images)).abs()
        rows.append(heat / heat.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12))
    run.grid("attacked", torch.cat(rows), len(x))


def curve(run: Run, model: nn.Module, x: Tensor, y: Tensor, how: Attacks) -> None:
    """epsilon.png: accuracy against epsilon, under PGD and under random noise of that size."""
    x, y = x[:500], y[:500]
    generator = torch.Generator(x.device).manual_seed(how.seed)
    sizes = [i / 10 * max(how.epsilon, 0.1) * 2 for i in range(6)]
    pgd, noise = [], []
    for size in sizes:
        rows = attacks.pgd_correct(model, x, y, size, how.steps, 1, how.seed)
        pgd.append(attacks.worst_case(rows))
        start = attacks.random_start(x, size, "linf", generator)
        noise.append(percent(attacks.predicted(model, (x + start).clamp(0, 1), y)))
    figure = new_figure()
    axes = figure.subplots()
    axes.plot(sizes, pgd, marker="o", label=f"PGD, {how.steps} steps")
    axes.plot(sizes, noise, marker="s", label="random noise")
    axes.set(xlabel="epsilon (pixel units)", ylabel="accuracy (%)", ylim=(-2, 102))
    axes.legend()
    run.figure("epsilon", figure)
