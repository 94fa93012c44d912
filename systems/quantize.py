"""Weights in 8 or 4 bits, by rounding each to the nearest level of a grid.

    absmax        scale = max|w| / (2^(b-1) - 1)     w ≈ scale · code             codes are signed
    zero point    scale = (max - min) / (2^b - 1)    w ≈ scale · (code - zero)    codes are unsigned

How many numbers share one scale decides the error: the whole matrix, a row (one output channel), or
a group of neighbours in a row. LLM.int8 (Dettmers et al. 2022, section 3) rounds the inputs as
well, so that the product is one of whole numbers, and leaves out the few input columns that are far
larger than the others.

Letters: N rows of inputs, I input features, O outputs, G groups in a row, b bits. A weight matrix
is (O, I), as in nn.Linear; GPT-2's Conv1D holds it transposed, and week 7's `load` turns it around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from labkit import UsageError, exercise

Kind = Literal["absmax", "zero_point"]


@exercise(minutes=10)
def absmax(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Symmetric codes: the largest absolute value of each row becomes the largest code.

    scale = max|row| / (2^(bits-1) - 1) and code = round(w / scale), half to even as torch.round; so
    codes lie between ±(2^(bits-1) - 1), and 0 stays exactly 0. A row of zeros has scale 1.

    Args:
        rows: float (..., n); each row along the last axis has a scale of its own.
        bits: 2 to 8.
    Returns:
        codes int8 (..., n), and scales (..., 1) in the dtype of the rows.
    """
    most = 2 ** (bits - 1) - 1
    scale = rows.abs().amax(dim=-1, keepdim=True) / most
    scale = torch.where(scale > 0, scale, 1.0)
    return (rows / scale).round().to(torch.int8), scale


@exercise(minutes=20)
def zero_point(rows: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Asymmetric codes: the range of each row, widened to contain 0, becomes 0 to 2^bits - 1.

    With low = min(row, 0) and high = max(row, 0): scale = (high - low) / (2^bits - 1), and zero =
    round(-low / scale) is the code that stands for 0. It is a whole number, so 0 stays exactly 0.
    code = round(w / scale) + zero, limited to 0 ... 2^bits - 1 (rounding twice can step over the
    edge by one). A row of zeros has scale 1 and zero 0.

    Args:
        rows: float (..., n); each row along the last axis has a scale and a zero of its own.
        bits: 2 to 8.
    Returns:
        codes uint8 (..., n), scales (..., 1) in the dtype of the rows, zeros uint8 (..., 1).
    """
    most = 2**bits - 1
    low = rows.amin(dim=-1, keepdim=True).clamp(max=0)
    high = rows.amax(dim=-1, keepdim=True).clamp(min=0)
    scale = (high - low) / most
    scale = torch.where(scale > 0, scale, 1.0)
    zero = (-low / scale).round()
    codes = ((rows / scale).round() + zero).clamp(0, most)
    return codes.to(torch.uint8), scale, zero.to(torch.uint8)


@exercise(minutes=10)
def pack_nibbles(codes: Tensor) -> Tensor:
    """Two 4-bit codes in each byte: the first of a pair in the low half, the second in the high.

    Args:
        codes: uint8 (..., n), each 0 to 15; n is even.
    Returns:
        uint8 (..., n / 2).
    """
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The inverse of `pack_nibbles`: uint8 (..., m) -> (..., 2 m)."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)


@exercise(minutes=25)
def llm_int8(x: Tensor, codes: Tensor, scale: Tensor, threshold: float) -> Tensor:
    """x Wᵀ with whole numbers, except for outlier features (Dettmers et al. 2022, section 3.2).

    An input feature (a column of x) is an outlier if any |x| in it is `threshold` or more. Outliers
    are multiplied in floating point with the weights that the codes stand for. In what is left of
    x, with outliers set to 0, each row gets absmax codes of its own (8 bits); the product of the
    two whole-number matrices is then multiplied by both scales: of the row of x, of the output.

    Args:
        x: float (N, I), left as it is. codes: int8 (O, I), from `absmax`. scale: (O, 1).
    Returns:
        (N, O) in the dtype of x.
    """
    outlier = (x.abs() >= threshold).any(dim=0)
    whole, row_scale = absmax(x.masked_fill(outlier, 0), 8)
    # float64 holds every sum of products of codes exactly, in any order of summation.
    product = (whole.double() @ codes.double().T).to(x.dtype) * row_scale * scale.T
    kept = (codes[:, outlier] * scale).to(x.dtype)
    return product + x[:, outlier] @ kept.T


@dataclass(frozen=True)
class Quantized:
    """A weight matrix (O, I) in codes; `dequantize` gives back what it stands for."""

    codes: Tensor
    """int8 (absmax) or uint8 (zero point), (O, I)."""
    scale: Tensor
    """(1, 1), (O, 1) or (O, G)."""
    zero: Tensor | None
    """uint8, of the scale's shape; None for absmax."""
    bits: int
    columns: Tensor | None = None
    """AWQ: (I,), what each column was multiplied by before it was rounded."""
    order: Tensor | None = None
    """GPTQ with act-order: int64 (I,), the column of the matrix that each column of codes is."""

    def dequantize(self) -> Tensor:
        """The matrix (O, I), in the dtype of the scale."""
        inputs = self.codes.shape[1]
        value = self.codes.to(self.scale.dtype)
        if self.zero is not None:
            value = value - spread(self.zero.to(value.dtype), inputs)
        value = value * spread(self.scale, inputs)
        if self.order is not None:
            value = torch.empty_like(value).index_copy_(1, self.order, value)
        return value if self.columns is None else value / self.columns


def spread(by_group: Tensor, inputs: int) -> Tensor:
    """One number for each group (O, G) -> one for each column (O, I)."""
    return by_group.repeat_interleave(inputs // by_group.shape[1], dim=1)


def group_size(group: int, inputs: int) -> int:
    """`group`, or the row where that is 0. Raises UsageError when it does not divide a row."""
    size = group or inputs
    if inputs % size:
        fitting = next(n for n in range(min(size, inputs), 0, -1) if inputs % n == 0)
        raise UsageError(
            f"group={group} does not divide a row of {inputs} weights; try group={fitting}"
        )
    return size


def round_matrix(
    weight: Tensor, bits: int, kind: Kind, group: int, whole: bool = False
) -> Quantized:
    """Round each weight by itself, to the nearest code.

    Args:
        weight: (O, I).
        group: columns that share a scale; 0: a row.
        whole: one scale for the whole matrix instead.
    Raises:
        UsageError when the group does not divide a row.
    """
    outputs, inputs = weight.shape
    size = group_size(group, inputs)
    rows = weight.reshape(1, -1) if whole else weight.unflatten(1, (inputs // size, size))
    if kind == "absmax":
        codes, scale = absmax(rows, bits)
        zero = None
    else:
        codes, scale, zero = zero_point(rows, bits)
        zero = zero.reshape(1, 1) if whole else zero.squeeze(2)
    scale = scale.reshape(1, 1) if whole else scale.squeeze(2)
    return Quantized(codes.reshape(outputs, inputs), scale, zero, bits)
