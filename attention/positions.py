"""Position encodings, three of them: attention by itself sees a set of tokens, not a sequence.

    sinusoidal   added to the embeddings       Vaswani et al. 2017, section 3.5
    rotary       turns queries and keys        Su et al. 2021 (RoFormer), section 3.2
    ALiBi        added to the scores           Press et al. 2022, section 3

**Two layouts of rotary.** The paper rotates neighbours, (x0, x1), (x2, x3), ...; Llama in Hugging
Face's transformers, and this module, rotate halves: (x0, x_{d/2}), (x1, x_{d/2+1}), ... They are
the same up to an order of the dimensions, so either can be trained, but weights trained with one
give silently wrong results with the other.

Letters: T positions, d dimensions, H heads, Tq queries, Tk keys.
"""

import torch
from torch import Tensor

from labkit import exercise


@exercise(minutes=15)
def sinusoidal(
    length: int,
    dim: int,
    start: int = 0,
    base: float = 10_000.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """The paper's encoding of positions start, start + 1, ..., start + length - 1.

        PE(p, 2i) = sin(p / base^(2i/d))        PE(p, 2i+1) = cos(p / base^(2i/d))

    Args:
        length: T.
        dim: d, even.
        start: position of the first row; with a cache, the number of earlier tokens.
        base: its powers are the wavelengths.
        device: where the table is made.
    Returns:
        float32 (T, d), sines in the even columns and cosines in the odd ones.
    Raises:
        ValueError when dim is odd.
    """
    if dim % 2:
        raise ValueError(f"sines and cosines come in pairs: dim must be even, got {dim}")
    position = torch.arange(start, start + length, device=device, dtype=torch.float32)
    frequency = base ** (-torch.arange(0, dim, 2, device=device) / dim)  # (d/2,)
    angle = position[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def rotary_tables(positions: Tensor, dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles p · base^(-2i/d), i < d/2, for `rotary`: each float32 (T, d/2).

    Args:
        positions: (T,), whole numbers; with a cache they continue where it ends.
        dim: d of a head. Raises ValueError when it is odd.
    """
    if dim % 2:
        raise ValueError(f"rotary positions turn pairs: a head's dim must be even, got {dim}")
    frequency = base ** (-torch.arange(0, dim, 2, device=positions.device) / dim)
    angle = positions.float()[:, None] * frequency
    return angle.cos(), angle.sin()


@exercise(minutes=15)
def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x_i, x_{i + d/2}) by its position's angle θ_i.

        x_i       ->  x_i cos θ_i - x_{i+d/2} sin θ_i
        x_{i+d/2} ->  x_{i+d/2} cos θ_i + x_i sin θ_i

    The product of a query rotated by p θ with a key rotated by p' θ depends only on p - p'.

    Args:
        x: queries or keys (B, H, T, d), d even.
        cos, sin: (T, d/2), float32, of θ_i at each position (see `rotary_tables`).
    Returns:
        (B, H, T, d), in the dtype of x, computed in float32 and rounded once at the end (float64
        stays float64); differentiable in all three.
    """
    first, second = x.chunk(2, dim=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat(turned, dim=-1).to(x.dtype)


@exercise(minutes=10)
def alibi_slopes(heads: int, device: torch.device | str | None = None) -> Tensor:
    """Each head's penalty per unit of distance: the sequence r, r², ..., r^H with r = 2^(-8/H).

    8 heads: 1/2, 1/4, ..., 1/256. The paper gives this for any H; the authors' code has another
    sequence where H is not a power of two.

    Args:
        heads: H, 1 or more.
        device: where the slopes are made.
    Returns:
        float32 (H,).
    """
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1, device=device))


def alibi_bias(slopes: Tensor, queries: int, keys: int) -> Tensor:
    """-slope · distance, to be added to the scores: (H, Tq, Tk) from slopes (H,).

    The queries are the last of the keys' positions (see `attention.causal_mask`). The paper is
    causal; here the distance to later keys is positive too.
    """
    position = torch.arange(queries, device=slopes.device) + (keys - queries)
    distance = (position[:, None] - torch.arange(keys, device=slopes.device)).abs()
    return -slopes[:, None, None] * distance
