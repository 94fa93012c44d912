"""Muon: momentum with orthogonalised steps, for the matrices inside a network.

    B ← μ B + (1 - μ) G        M = (1 - μ) G + μ B        W ← W - η √max(1, rows/columns) msign(M)

msign(M) = U Vᵀ for M = U S Vᵀ: all singular values become 1, so directions with small gradients are
learned as fast as those with large ones. A few matrix products approximate it well enough
(`newton_schulz`). Embeddings, head, gains and biases stay with AdamW. The rest of a step
is `labkit.learning.muon`, for weeks 6 and 10 too.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from labkit import exercise
from labkit.learning.muon import Muon, others
from pretraining.model import GPT

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of the quintic, chosen in the post above for a steep slope at 0: it raises small singular
values fast, and the large ones end between about 0.7 and 1.2 instead of at 1."""


@exercise(minutes=25)
def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """Move all singular values of a matrix towards 1 and keep its singular vectors.

    Divide by the Frobenius norm (at least 1e-7), so that no singular value is above 1, then repeat

        A = X Xᵀ        X ← a X + (b A + c A²) X        with a, b, c = COEFFICIENTS

    which applies s ← a s + b s³ + c s⁵ to each singular value s. A tall matrix is transposed before
    and after, so that A is the smaller of the two products.

    Args:
        matrix: (..., rows, columns), of any dtype; leading dimensions are independent matrices.
        steps: repetitions.
    Returns:
        the same shape, in the dtype of `matrix`, which is also that of the computation.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).contiguous()
    x = x.view(-1, *x.shape[-2:])  # one stack, for baddbmm: a sum and a product in one pass
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).reshape(matrix.shape)


def build_optimizers(
    model: GPT,
    name: Literal["adamw", "muon"],
    lr: float,
    matrix_lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
    precision: str = "auto",
) -> list[torch.optim.Optimizer]:
    """AdamW for everything; or Muon, with `matrix_lr`, for the layers' matrices and AdamW for the
    rest.

    Weight decay applies to two-dimensional weights only, not to gains and biases. Each group keeps
    its peak learning rate as `peak_lr`. With `precision` fp32 Muon computes in fp32 as well.
    """
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2] if name == "muon" else []
    rest = others(model, matrices)
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr, betas=betas, fused=True)
    ]
    if matrices:
        optimizers.append(
            Muon(
                matrices, matrix_lr, weight_decay=weight_decay, precision=precision,
                orthogonalize=newton_schulz,
            )
        )  # fmt: skip
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers
