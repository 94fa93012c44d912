"""AWQ: protect the weights that meet large inputs, by scaling their columns up before rounding
(Lin et al. 2023, section 3.2).

    W x = (W diag(s)) (diag(s)⁻¹ x)        s_j = (mean |x_j|)^α,  α from a grid

A column times s > 1 loses about 1/s of its rounding error, as long as the group's largest weight
stays the same. α is the one with the smallest error of the layer's outputs on calibration inputs.
The paper folds 1/s into the layer before; here s stays beside the codes and is divided out when
the matrix is opened. The product is the same, and layers behind a GELU need no exception.

Letters: O outputs, I inputs, n calibration vectors.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from labkit import exercise
from systems.quantize import Kind, Quantized, round_matrix

GRID = 20
"""Values of α that are tried, from 0 (plain rounding) to 1."""


@exercise(minutes=15)
def column_scales(mean_abs: Tensor, alpha: float) -> Tensor:
    """AWQ's scale of each column: mean_abs^alpha, divided by √(largest · smallest) of these.

    The division keeps the scales around 1: the largest times the smallest is 1. Means below 1e-4
    count as 1e-4, so that a silent feature has a finite scale.

    Args:
        mean_abs: (I,), mean absolute value of each input feature; left as it is.
        alpha: 0 to 1; 0 gives 1 for every column.
    Returns:
        (I,).
    """
    scales = mean_abs.clamp(min=1e-4) ** alpha
    return scales / (scales.max() * scales.min()).sqrt()


def awq(
    weight: Tensor, hessian: Tensor, mean_abs: Tensor, bits: int, kind: Kind, group: int
) -> Quantized:
    """A matrix (O, I) rounded with the best of GRID + 1 column scales.

    The error ‖(W - Q) X‖² comes from the Hessian of the calibration inputs, tr(E H Eᵀ): the inputs
    themselves need not be kept.

    Args:
        hessian: float64 (I, I). mean_abs: (I,), of the same inputs.
    """
    best, least = round_matrix(weight, bits, kind, group), torch.inf
    for step in range(GRID + 1):
        columns = column_scales(mean_abs.float(), step / GRID)
        found = replace(round_matrix(weight * columns, bits, kind, group), columns=columns)
        error = output_error(weight, found.dequantize(), hessian)
        if error < least:
            best, least = found, error
    return best


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """tr((W - Q) H (W - Q)ᵀ): twice the mean squared error of the outputs, summed over them."""
    difference = (weight - rounded).double()
    return float(((difference @ hessian) * difference).sum())
