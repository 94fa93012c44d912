"""GPTQ: rounding one column after another, each time repairing the error with the columns left
(Frantar et al. 2022, section 3).

For a layer with inputs X, rounding W to Q costs ‖(W - Q) X‖² = tr((W - Q) H (W - Q)ᵀ), H = X Xᵀ.
Once column j is rounded, the best change of the columns that are still free is

    δ = -(w_j - q_j) / U_jj · U_j,j+1:        U the upper Cholesky factor of H⁻¹, H⁻¹ = Uᵀ U

The factor is computed once, for all rows of W and all steps (section 3.3, step 3). The paper also
updates in blocks of 128 columns; that changes the speed on a GPU and nothing else, so it is left
out here.

Letters: O outputs, I inputs, n calibration vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labkit import exercise
from systems.quantize import Kind, Quantized, absmax, group_size, zero_point


class Hessian:
    """H = 2/n Σ x xᵀ of a layer's inputs, summed batch by batch in float64."""

    def __init__(self, inputs: int) -> None:
        self.total, self.count = torch.zeros(inputs, inputs, dtype=torch.float64), 0

    def add(self, x: Tensor) -> None:
        """Take in inputs (..., I)."""
        rows = x.detach().reshape(-1, x.shape[-1])
        # One product in the inputs' own precision; only the sum over batches needs more.
        self.total += (rows.T @ rows).to(self.total)
        self.count += len(rows)

    def value(self) -> Tensor:
        """(I, I)."""
        return 2 * self.total / max(1, self.count)


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """U, the upper Cholesky factor of (H + damping · mean(diag H) · 1)⁻¹: (I, I).

    Damping makes H invertible when there are few calibration vectors or features that depend on
    each other. Features that were always 0 (dead ones) get 1 on the diagonal.
    """
    h = hessian.clone()
    diagonal = h.diagonal()
    mean = diagonal.mean()
    diagonal[diagonal == 0] = 1
    diagonal += damping * mean
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    return torch.linalg.cholesky(inverse, upper=True)


@exercise(minutes=30)
def quantize_columns(
    weight: Tensor, factor: Tensor, nearest: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """Round column after column, and let the columns that follow make up for each error.

    For j = 0 ... I-1: q = nearest(j, current matrix); error = (current column j - q) / U_jj; then
    each later column k > j becomes: current column k - error · U_jk. Column j itself is final.

    Args:
        weight: (O, I), left as it is.
        factor: U, upper triangular (I, I).
        nearest: takes j and the matrix as it now stands (O, I), with all repairs so far; returns
            the rounded column j (O,). It may look at later columns too (for a group's scale).
    Returns:
        The rounded matrix (O, I).
    """
    current = weight.clone()
    rounded = torch.empty_like(weight)
    for j in range(weight.shape[1]):
        rounded[:, j] = nearest(j, current)
        error = (current[:, j] - rounded[:, j]) / factor[j, j]
        current[:, j + 1 :] -= torch.outer(error, factor[j, j + 1 :])
    return rounded


def gptq(
    weight: Tensor, hessian: Tensor, bits: int, kind: Kind, group: int, damping: float = 0.01,
    act_order: bool = False,
) -> Quantized:  # fmt: skip
    """A matrix (O, I) rounded by GPTQ. A group's scale is found when its first column is reached,
    from the weights as they are then.

    Args:
        hessian: float64 (I, I), of the layer's inputs.
        group: columns that share a scale; 0: a row.
        act_order: round the columns with the largest H_jj first, while many are left for repairs.
            Groups are then of columns that follow each other in that order.
    Raises:
        UsageError when the group does not divide a row.
    """
    size = group_size(group, weight.shape[1])
    order = hessian.diagonal().argsort(descending=True, stable=True) if act_order else None
    matrix = weight.double()
    if order is not None:
        matrix, hessian = matrix[:, order], hessian[order][:, order]
    matrix = matrix.masked_fill(hessian.diagonal() == 0, 0)  # nothing ever comes through there
    codes = torch.empty(weight.shape, dtype=torch.int8 if kind == "absmax" else torch.uint8)
    scales, zeros = [], []

    def nearest(j: int, current: Tensor) -> Tensor:
        if j % size == 0:
            block = current[:, j : j + size]
            if kind == "absmax":
                scales.append(absmax(block, bits)[1].float())
            else:
                _, scale, zero = zero_point(block, bits)
                scales.append(scale.float())
                zeros.append(zero)
        scale = scales[-1].double().squeeze(1)
        zero = zeros[-1].double().squeeze(1) if zeros else torch.zeros_like(scale)
        most = 2**bits - 1 if zeros else 2 ** (bits - 1) - 1
        code = ((current[:, j] / scale).round() + zero).clamp(0 if zeros else -most, most)
        codes[:, j] = code.to(codes.dtype)
        return (code - zero) * scale

    quantize_columns(matrix, inverse_factor(hessian, damping), nearest)
    zero = torch.cat(zeros, dim=1) if zeros else None
    return Quantized(codes, torch.cat(scales, dim=1), zero, bits, order=order)
