"""Classifier-free guidance (Ho & Salimans 2022): one network, called with and without the label.

In training the label is sometimes replaced by "no label" (`drop_labels`), so the same network also
learns the unconditional prediction. In sampling (`guided`) the difference of the two is amplified.
"""

import torch
from torch import Tensor, nn

from diffusion.ddpm import Denoiser
from labkit import exercise


@exercise(minutes=10)
def drop_labels(labels: Tensor, probability: float, null: int) -> Tensor:
    """Labels (B,) int64, each replaced by `null` independently, with the given probability.

    Returns a new tensor on the same device. Random numbers come from its global PyTorch generator.
    """
    dropped = torch.rand(labels.shape, device=labels.device) < probability
    return torch.where(dropped, null, labels)


@exercise(minutes=15)
def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """unconditional + scale (conditional - unconditional), elementwise.

    scale 0 ignores the label, 1 is the plain conditional model, above 1 amplifies the effect of the
    label. (The paper's eq. 6 writes it with w = scale - 1.) Gradients flow through both
    predictions, which are not changed.
    """
    return unconditional + scale * (conditional - unconditional)


def guided(model: nn.Module, labels: Tensor, scale: float, null: int) -> Denoiser:
    """The model with labels (B,) and guidance built in: a function of (x, t) for the samplers.

    At scale 1 and 0 it takes one call with a batch of B, otherwise a batch of 2 B.
    """

    def denoise(x: Tensor, t: float) -> Tensor:
        if scale in (0, 1):
            y = labels if scale == 1 else torch.full_like(labels, null)
            output: Tensor = model(x, torch.full((len(x),), t, device=x.device), y).float()
            return output
        y = torch.cat([labels, torch.full_like(labels, null)])
        both = model(x.repeat(2, 1, 1, 1), torch.full((2 * len(x),), t, device=x.device), y).float()
        return guide(both[: len(x)], both[len(x) :], scale)

    return denoise
