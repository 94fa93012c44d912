"""Which pixels mattered: gradients (Simonyan et al. 2014), integrated gradients (Sundararajan et
al. 2017), SmoothGrad (Smilkov et al. 2017) and Grad-CAM (Selvaraju et al. 2017).

Letters: B batch, C channels, H height, W width, K classes. Images are float (B, C, H, W).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import UsageError, exercise


def class_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of each picture's logit of class y by its pixels: (B, C, H, W), (B,) -> like x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        score = model(x).gather(1, y[:, None]).sum()
        return torch.autograd.grad(score, x)[0]


@exercise(minutes=20)
def integrated_gradients(
    model: nn.Module, x: Tensor, y: Tensor, baseline: Tensor, steps: int = 50
) -> Tensor:
    """Attribution of the logit of class y to each pixel (Sundararajan et al. 2017, eq. 1 and 3).

        (x - b) mean over k of grad F_y(b + (k - 1/2) / steps (x - b)),   k = 1..steps

    This is the midpoint rule. The attributions of a picture sum to F_y(x) - F_y(b) up to the error
    of the rule (completeness). `class_gradient` gives grad F_y.

    Args:
        x: (B, C, H, W).
        y: (B,).
        baseline: b, a shape that broadcasts to that of x.
    Returns:
        (B, C, H, W), without a gradient. UsageError for steps < 1.
    """
    if steps < 1:
        raise UsageError(f"the integral needs one step or more, got steps={steps}")
    total = torch.zeros_like(x)
    for k in range(steps):
        total += class_gradient(model, baseline + (k + 0.5) / steps * (x - baseline), y)
    return (x - baseline) * total / steps


def smooth_grad(
    model: nn.Module, x: Tensor, y: Tensor, deviation: float, samples: int, seed: int
) -> Tensor:
    """Mean of `class_gradient` over noisy copies of x (Smilkov et al. 2017, section 3)."""
    generator = torch.Generator(x.device).manual_seed(seed)
    total = torch.zeros_like(x)
    for _ in range(samples):
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        total += class_gradient(model, x + deviation * noise, y)
    return total / samples


@exercise(minutes=15)
def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM's map (Selvaraju et al. 2017, eq. 1 and 2): (B, C, H, W) twice -> (B, H, W).

    The weight of a channel is the mean of its gradient over the picture; the map is the sum over
    channels of weight times activation, and negative values become 0.
    """
    weight = gradient.mean(dim=(2, 3), keepdim=True)
    return (weight * activation).sum(dim=1).relu()


def grad_cam_of(model: nn.Module, layer: str, x: Tensor, y: Tensor) -> Tensor:
    """`grad_cam` of class y's logit at a layer of the model, enlarged to x: (B, H, W).

    UsageError for a layer that the model does not have. The hook is removed in any case.
    """
    if layer not in dict(model.named_modules()):
        raise UsageError(f"the model has no layer {layer!r}; try model.get_submodule(name)")
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, arguments, output: kept.append(output)
    )
    try:
        with torch.enable_grad():
            score = model(x.detach().requires_grad_()).gather(1, y[:, None]).sum()
            slope = torch.autograd.grad(score, kept[0])[0]
    finally:
        handle.remove()
    small = grad_cam(kept[0].detach(), slope)[:, None]
    large = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)
    return large[:, 0]
