"""Accuracy under each attack, and radii: numbers from a trained model."""

import torch
from torch import Tensor, nn

from robustness import attacks, masking
from robustness.attacks import percent
from robustness.auto_pgd import apgd
from robustness.settings import AttackSettings
from robustness.square import square_attack


def noisy(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, seed: int) -> float:
    """Accuracy in percent under uniform noise of size epsilon."""
    generator = torch.Generator(x.device).manual_seed(seed)
    start = attacks.random_start(x, epsilon, "linf", generator)
    return percent(attacks.predicted(model, (x + start).clamp(0, 1), y))


def auto_correct(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, steps: int, seed: int
) -> Tensor:
    """Which pictures stay right under Auto-PGD with the cross-entropy and with the DLR loss, bool
    (B,). The second attacks only what the first left.
    """
    left = torch.arange(len(x), device=x.device)
    right = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for loss in ("cross_entropy", "dlr"):
        found = apgd(model, x[left], y[left], epsilon, steps, loss, seed)  # type: ignore[arg-type]
        left = left[attacks.predicted(model, found, y[left])]
    right[left] = True
    return right


def under_attack(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, how: AttackSettings, seed: int
) -> tuple[dict[str, float], list[str]]:
    """Accuracy in percent under each attack, and the signs of masked gradients.

    The first `few` pictures are seen by all attacks; `pgd_subset_accuracy` is PGD's on them, so
    that the others can be compared with it.
    """
    pgd = attacks.pgd_correct(model, x, y, epsilon, how.steps, how.restarts, seed)
    few = min(how.few, len(x))
    x_few, y_few = x[:few], y[:few]
    one = attacks.predicted(model, attacks.fgsm(model, x, y, epsilon), y)
    square = square_attack(model, x_few, y_few, epsilon, how.queries, seed)
    black_box = percent(attacks.predicted(model, square, y_few))
    unbounded = attacks.pgd_correct(model, x_few, y_few, 1.0, how.steps, 1, seed)
    white_box = attacks.worst_case(pgd[:, :few])
    measured = masking.Measured(
        percent(one[:few]),
        white_box,
        black_box,
        noisy(model, x_few, y_few, epsilon, seed),
        attacks.worst_case(unbounded),
    )
    signs = masking.signs_of_masking(measured)
    metrics = {
        "pgd_accuracy": attacks.worst_case(pgd),
        "pgd_one_start_accuracy": percent(pgd[0]),
        "fgsm_accuracy": percent(one),
        "noise_accuracy": measured.noise,
        "pgd_subset_accuracy": white_box,
        "apgd_accuracy": percent(auto_correct(model, x_few, y_few, epsilon, how.steps, seed)),
        "square_accuracy": black_box,
        "unbounded_accuracy": measured.unbounded,
        "masking": white_box - black_box,
        "masking_signs": len(signs),
    }
    return metrics, signs


def against_epsilon(
    model: nn.Module, x: Tensor, y: Tensor, sizes: list[float], steps: int, seed: int
) -> dict[str, list[float]]:
    """Accuracy in percent for each epsilon under noise, FGSM and PGD from one random start."""
    rows: dict[str, list[float]] = {"noise": [], "FGSM": [], f"PGD, {steps} steps": []}
    for size in sizes:
        pgd = attacks.pgd_correct(model, x, y, size, steps, 1, seed)
        one = attacks.predicted(model, attacks.fgsm(model, x, y, size), y)
        for row, value in zip(
            rows.values(), (noisy(model, x, y, size, seed), percent(one), percent(pgd)), strict=True
        ):
            row.append(value)
    return rows
