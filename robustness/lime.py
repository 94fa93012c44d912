"""LIME for pictures (Ribeiro, Singh and Guestrin 2016): a linear model around one prediction.

The picture is cut into segments. Copies with random segments painted over are shown to the model,
and a weighted ridge regression finds what each segment adds. It needs no gradients.

Letters: B batch, C channels, H height, W width, K classes, S segments, M samples.
"""

import torch
from torch import Tensor, nn

from labkit import UsageError, exercise


def grid(height: int, width: int, cells: int) -> Tensor:
    """Segments: a grid of cells x cells rectangles, int64 (H, W) with values from 0 to S - 1.

    Raises UsageError when a side has fewer pixels than cells.
    """
    if cells < 1 or cells > min(height, width):
        raise UsageError(f"{cells} cells a side do not fit into {height} x {width} pixels")
    rows = torch.arange(height) * cells // height
    columns = torch.arange(width) * cells // width
    return rows[:, None] * cells + columns


@exercise(minutes=15)
def kernel(masks: Tensor, width: float = 0.25) -> Tensor:
    """How much each sample counts, float (M,), for masks bool (M, S): which segments it kept.

        exp(-d^2 / width^2),   d = 1 - sqrt(share of segments kept)

    d is the cosine distance between the mask and the picture's own, which is all ones (section 3.4;
    a mask of nothing has distance 1). width above 0, or UsageError.
    """
    if not width > 0:
        raise UsageError(f"the kernel's width must be above 0, got {width}")
    distance = 1 - masks.float().mean(dim=1).sqrt()
    return torch.exp(-((distance / width) ** 2))


@exercise(minutes=25)
def fit(masks: Tensor, outputs: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """Coefficients of the segments, (B, S), of a weighted ridge regression for each picture.

    For picture b they are the w that, with an intercept c that is not shrunk, minimises

        sum over m of weights_m (outputs_bm - c - masks_m . w)^2 + ridge |w|^2

    The intercept disappears once the weighted mean is taken from the masks. The result has the type
    of outputs, and no argument is changed in place.

    Args:
        masks: bool (M, S), the same for all pictures.
        outputs: what the model said about each sample, (B, M).
        weights: (M,), their sum above 0.
        ridge: above 0, or UsageError.
    """
    if not ridge > 0:
        raise UsageError(f"the ridge must be above 0, got {ridge}")
    z, weights = masks.double(), weights.double()
    z = z - weights @ z / weights.sum()
    weighted = weights[:, None] * z  # its columns sum to 0, so a constant in outputs has no effect
    gram = weighted.T @ z
    gram.diagonal().add_(ridge)
    return torch.linalg.solve(gram, (outputs.double() @ weighted).T).T.to(outputs.dtype)


def lime(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    segments: Tensor,
    samples: int,
    seed: int,
    ridge: float = 1.0,
) -> Tensor:
    """What each segment adds to the probability of class y: (B, C, H, W), (B,) -> (B, H, W).

    Samples keep each segment with probability 1/2; the others are black. The first sample is the
    picture itself. All pictures share the masks. The answer depends on `seed`: the fewer samples,
    the more.
    """
    generator = torch.Generator().manual_seed(seed)
    count = int(segments.max()) + 1
    masks = torch.rand(samples, count, generator=generator) < 0.5
    masks[0] = True
    rows = []
    for mask in masks:
        kept = mask[segments].to(x.device)  # (H, W)
        with torch.no_grad():
            rows.append(model(x * kept).softmax(dim=1).gather(1, y[:, None])[:, 0])
    outputs = torch.stack(rows, dim=1).cpu()
    found = fit(masks, outputs, kernel(masks), ridge)
    return found[:, segments].to(x.device)
