"""Square attack (Andriushchenko et al. 2020, algorithms 1 and 2): no gradients, only outputs.

It changes one random square at a time to +-epsilon, and keeps a change that lowers the margin.
An attack without gradients that beats one with gradients shows that the gradients are masked.
"""

import torch
from torch import Tensor, nn

from robustness.attacks import check


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of the class minus the largest of the others: (B, K), (B,) -> (B,); wrong below 0."""
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return own[:, 0] - others.amax(dim=1)


def side_of(step: int, queries: int, height: int, width: int, share: float = 0.8) -> int:
    """Side of the square at a query. The share of pixels halves at fixed points of the budget."""
    points = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # of the paper, over 10,000
    halvings = sum(step / queries > point for point in points)
    pixels = share / 2**halvings * height * width
    return max(1, min(round(pixels**0.5), height, width))


def square_attack(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, queries: int, seed: int
) -> Tensor:
    """Adversarial pictures within epsilon (L-inf): (B, C, H, W) in [0, 1] -> the same.

    Raises UsageError as `attacks.check` does.
    """
    check(model, x, y, epsilon)
    generator = torch.Generator(x.device).manual_seed(seed)

    def signs(*shape: int) -> Tensor:
        return 2 * torch.randint(0, 2, shape, generator=generator, device=x.device).to(x.dtype) - 1

    batch, channels, height, width = x.shape
    with torch.no_grad():
        best = (x + epsilon * signs(batch, channels, 1, width)).clamp(0, 1)  # stripes
        value = margin(model(best), y)
        for step in range(queries - 1):
            active = (value > 0).nonzero()[:, 0]
            if not len(active):
                break
            side = side_of(step, queries, height, width)
            top, left = (
                torch.randint(
                    most - side + 1, (len(active), 1), generator=generator, device=x.device
                )
                for most in (height, width)
            )
            rows = torch.arange(height, device=x.device)
            columns = torch.arange(width, device=x.device)
            inside = ((rows >= top) & (rows < top + side))[:, None, :, None] & (
                (columns >= left) & (columns < left + side)
            )[:, None, None, :]
            changed = x[active] + epsilon * signs(len(active), channels, 1, 1)
            tried = torch.where(inside, changed, best[active]).clamp(0, 1)
            now = margin(model(tried), y[active])
            better = now < value[active]
            best[active[better]] = tried[better]
            value[active[better]] = now[better]
    return best
