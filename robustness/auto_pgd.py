"""Auto-PGD (Croce and Hein 2020, algorithm 1): PGD that chooses its own step size.

It begins with steps of 2 epsilon and halves them, picture by picture, when progress stops. So it
has nothing to tune, and its DLR loss, a ratio of logits, does not vanish for a confident model as
the cross-entropy does.

Letters: B batch, C channels, H height, W width, K classes. Images are float (B, C, H, W).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import UsageError, exercise
from robustness.attacks import check, project, random_start

Loss = Literal["cross_entropy", "dlr"]
MOMENTUM = 0.75  # alpha: share of the new step; the rest goes on in the last direction
ENOUGH = 0.75  # rho: share of the steps that must raise the loss, or they are too long


@exercise(minutes=20)
def dlr_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The difference of logits ratio, which an attack raises: (B, K), (B,) -> (B,).

        -(z_y - max over i != y of z_i) / (z_1st - z_3rd)

    z_1st and z_3rd are the picture's largest and third largest logit (Croce and Hein 2020, eq. 6).
    It is above 0 where the answer is wrong, and stays the same when all logits are shifted or
    scaled. 10^-12 is added to the denominator, since all three may be equal. Fewer than 3 classes
    raise UsageError. logits is not changed in place.
    """
    if logits.shape[1] < 3:
        raise UsageError(f"the DLR loss needs 3 classes or more, got {logits.shape[1]}")
    top = logits.sort(dim=1, descending=True).values
    own = logits.gather(1, y[:, None])[:, 0]
    # The largest of the others is the second where the answer is right, else the first.
    other = torch.where(logits.argmax(dim=1) == y, top[:, 1], top[:, 0])
    return -(own - other) / (top[:, 0] - top[:, 2] + 1e-12)


def checkpoints(steps: int) -> list[int]:
    """Steps after which the step size is looked at: ceil(p_j steps), p_0 = 0, p_1 = 0.22.

    The gaps shrink by 0.03 from one to the next, down to 0.06 (section 3.1).
    """
    shares, gap = [0.0], 0.22
    while shares[-1] + gap <= 1 + 1e-9:
        shares.append(shares[-1] + gap)
        gap = max(gap - 0.03, 0.06)
    # Rounded first: 0.22 + 0.19 is a little above 0.41, and ceil would see it.
    return sorted({math.ceil(round(share * steps, 6)) for share in shares})


@exercise(minutes=15)
def halves(rises: Tensor, window: int, same_step: Tensor, same_best: Tensor) -> Tensor:
    """For which pictures the step is halved at a checkpoint, bool (B,).

    Either the loss rose in fewer than `ENOUGH` of the window's steps, or both the step size and the
    best loss are what they were at the checkpoint before (conditions 1 and 2 of section 3.1).

    Args:
        rises: in how many steps since the checkpoint before the loss rose, int (B,).
        window: how many steps those were.
        same_step: the step size is the one of the checkpoint before, bool (B,).
        same_best: so is the best loss, bool (B,).
    """
    return (rises < ENOUGH * window) | (same_step & same_best)


def losses(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Each picture's loss (B,), its gradient by the pixels (B, C, H, W), and which are right."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x).float()
        if loss == "dlr":
            value = dlr_loss(logits, y)
        else:
            value = F.cross_entropy(logits, y, reduction="none")
        slope = torch.autograd.grad(value.sum(), x)[0]
    return value.detach(), slope, logits.argmax(dim=1) == y


def apgd(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, steps: int, loss: Loss, seed: int
) -> Tensor:
    """Adversarial pictures within epsilon (L-inf): (B, C, H, W) in [0, 1] -> the same.

    A picture that was fooled is not moved any more; of the others the result has the point with the
    highest loss. Raises UsageError as `attacks.check` does, and for fewer than one step.
    """
    check(model, x, y, epsilon)
    if steps < 1:
        raise UsageError(f"Auto-PGD takes one step or more, got steps={steps}")
    generator = torch.Generator(x.device).manual_seed(seed)
    noise = random_start(x, epsilon, "linf", generator)
    found = (x + noise).clamp(0, 1)
    value, slope, right = losses(model, found, y, loss)
    s = {
        "row": torch.arange(len(x), device=x.device), "x": x, "y": y, "now": found, "before": found,
        "value": value, "slope": slope, "best": found, "best_value": value, "best_slope": slope,
        "step": torch.full_like(value, 2 * epsilon), "rises": torch.zeros_like(value),
        "step_then": torch.full_like(value, 2 * epsilon), "best_then": value,
    }  # fmt: skip
    s = {name: t[right].clone() for name, t in s.items()}
    marks = checkpoints(steps)
    for k in range(1, steps + 1):
        if not len(s["row"]):
            break
        into = 1.0 if k == 1 else MOMENTUM
        ahead = inside(s["x"], s["now"] + s["step"].view(-1, 1, 1, 1) * s["slope"].sign(), epsilon)
        turned = s["now"] + into * (ahead - s["now"]) + (1 - into) * (s["now"] - s["before"])
        s["before"], s["now"] = s["now"], inside(s["x"], turned, epsilon)
        old = s["value"]
        s["value"], s["slope"], right = losses(model, s["now"], s["y"], loss)
        s["rises"] = s["rises"] + (s["value"] > old)
        better = s["value"] > s["best_value"]
        for name in ("value", "slope"):
            s[f"best_{name}"] = torch.where(fit(better, s[name]), s[name], s[f"best_{name}"])
        s["best"] = torch.where(fit(better, s["now"]), s["now"], s["best"])
        found[s["row"]] = torch.where(fit(right, s["best"]), s["best"], s["now"])
        if k in marks:
            restart_short(s, k - marks[marks.index(k) - 1])
        s = {name: t[right] for name, t in s.items()}
    return found


def restart_short(s: dict[str, Tensor], window: int) -> None:
    """At a checkpoint: halve the step where `halves` says so, and go on from the best point."""
    stuck = halves(
        s["rises"], window, s["step"] == s["step_then"], s["best_value"] == s["best_then"]
    )
    s["step_then"], s["best_then"] = s["step"], s["best_value"]
    s["step"] = torch.where(stuck, s["step"] / 2, s["step"])
    for name, best in (("now", "best"), ("value", "best_value"), ("slope", "best_slope")):
        s[name] = torch.where(fit(stuck, s[name]), s[best], s[name])
    s["rises"] = torch.zeros_like(s["rises"])


def inside(x: Tensor, moved: Tensor, epsilon: float) -> Tensor:
    """The nearest picture to `moved` within epsilon of x and in [0, 1]."""
    return (x + project(moved - x, epsilon, "linf")).clamp(0, 1)


def fit(rows: Tensor, like: Tensor) -> Tensor:
    """(B,) with as many dimensions as `like`, so that it broadcasts."""
    return rows.view(-1, *[1] * (like.dim() - 1))
