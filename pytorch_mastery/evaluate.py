"""Measuring a classifier: eval mode, no gradients, every image once."""

import torch
from torch import Tensor, nn

from labkit import exercise


@exercise(minutes=15)
def accuracy(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 500) -> float:
    """Percentage of images whose largest logit is that of their class.

    The model is put into eval mode (batch normalisation uses its running statistics, so that the
    answer for an image does not depend on the rest of the batch), and afterwards back into its
    previous mode. It gets batch_size images at a time; the last batch may be smaller and counts by
    its size.

    Args:
        model: float (B, C, H, W) in [0, 1] -> logits (B, K).
        x: uint8 (N, C, H, W).
        y: int64 (N,).
    Returns:
        0..100.
    """
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        correct = sum(
            int((model(images.float() / 255).argmax(dim=1) == labels).sum())
            for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True)
        )
    model.train(was_training)
    return 100 * correct / len(x)
