"""A compact U-Net with time and class conditioning (Ho et al. 2020, appendix B), made to be fast.

    picture -> [blocks, halve] x levels -> attention -> [double, blocks] x levels -> picture

What differs from the paper's network, and why:
- Normalisation over the whole picture (GroupNorm with one group), which is cheap; see `normalise`.
- Time and class scale and shift the normalised features (Nichol & Dhariwal 2021, section 3), which
  is stronger than adding to them.
- Attention at the lowest resolution alone, where there are few pixels.

Letters: B batch, C channels, H height, W width, D channels of the conditioning vector.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise


@exercise(minutes=15)
def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of 1000 t at width / 2 frequencies (Vaswani et al. 2017, section 3.5).

    Column j < width / 2 is cos(1000 t f_j), column width / 2 + j is sin(1000 t f_j), with f_j =
    10000^(-j / (width / 2)): neighbouring times differ in the fast columns, distant ones in the
    slow.

    Args:
        t: (B,) in [0, 1], of any floating type.
        width: even.
    Returns:
        float32 (B, width), computed in float32 and on the device of t; differentiable in t.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, device=t.device))
    angles = 1000 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def normalise(x: Tensor) -> Tensor:
    """Each picture of (B, C, H, W) to mean 0 and variance 1 over all its channels and pixels.

    GroupNorm with one group, computed by `layer_norm`: in the channels-last layout a picture is one
    contiguous block of memory. On a CPU in bf16 that is 6 times as fast.
    """
    x = x.permute(0, 2, 3, 1)
    return F.layer_norm(x, x.shape[1:]).permute(0, 3, 1, 2)


class Norm(nn.Module):
    """`normalise`, then a learned scale and shift for each channel of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift.to(x.dtype), normalise(x), self.scale.to(x.dtype))


class Conv(nn.Module):
    """nn.Conv2d whose weight is stored as a matrix, (C_out, kernel * kernel * C_in).

    The optimiser Muon, which works on matrices, can then update it. With `zero` all weights start
    at 0: a residual branch that ends in such a layer starts with output 0.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, zero: bool = False
    ) -> None:
        super().__init__()
        self.form = (channels_out, kernel, kernel, channels_in)
        self.stride, self.padding = stride, kernel // 2
        fan_in = kernel * kernel * channels_in
        bound = 0.0 if zero else fan_in**-0.5  # nn.Conv2d's own
        self.weight = nn.Parameter(torch.empty(channels_out, fan_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(self.form).permute(0, 3, 1, 2)  # (C_out, C_in, k, k)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a residual; between them the condition scales and shifts."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.norm1 = Norm(channels_in)
        self.conv1 = Conv(channels_in, channels_out, 3)
        self.modulation = nn.Linear(condition, 2 * channels_out)
        self.conv2 = Conv(channels_out, channels_out, 3, zero=True)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else Conv(channels_in, channels_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C_in, H, W), condition (B, D) -> (B, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, normalise(h), 1 + scale)
        out: Tensor = self.skip(x) + self.conv2(F.silu(h))
        return out


class SelfAttention(nn.Module):
    """Every pixel attends to every other: used at the smallest resolution, with few pixels."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(channels)
        self.qkv = Conv(channels, 3 * channels, 1)
        self.out = Conv(channels, channels, 1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # (B, heads, H W, C / heads)
        # Written out: over 49 pixels the fused kernel is slower than two matrix products on a CPU.
        weights = (q @ k.transpose(-1, -2) / math.sqrt(C // self.heads)).softmax(dim=-1)
        h = (weights.to(v.dtype) @ v).transpose(-1, -2).reshape(B, C, H, W)
        out: Tensor = x + self.out(h.contiguous(memory_format=torch.channels_last))
        return out


class UNet(nn.Module):
    """Noisy pictures, time, class -> the prediction (eps, v, x0 or velocity) in their shape.

    Height and width must be multiples of 2^(levels - 1): 28 fits three levels, 32 six.
    """

    def __init__(
        self,
        channels: int = 1,
        classes: int = 10,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
    ) -> None:
        """Level i has width * multipliers[i] channels and `blocks` residual blocks each way."""
        super().__init__()
        self.shape = {
            "channels": channels,
            "classes": classes,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
        }
        self.width, self.blocks = width, blocks
        self.null = classes  # the label that means "any class"
        D = 4 * width
        self.embed_time = nn.Sequential(nn.Linear(width, D), nn.SiLU(), nn.Linear(D, D))
        self.embed_class = nn.Embedding(classes + 1, D)
        widths = [width * m for m in multipliers]

        self.enter = Conv(channels, widths[0], 3)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, w in enumerate(widths):
            self.down.extend(ResidualBlock(w, w, D) for _ in range(blocks))
            self.up.extend(ResidualBlock(2 * w, w, D) for _ in range(blocks))
            if i + 1 < len(widths):
                self.shrink.append(Conv(w, widths[i + 1], 3, stride=2))
                self.grow.append(Conv(widths[i + 1], w, 3))
        self.attention = SelfAttention(widths[-1])
        self.middle = ResidualBlock(widths[-1], widths[-1], D)
        self.norm = Norm(widths[0])
        self.leave = Conv(widths[0], channels, 3, zero=True)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,) in [0, 1], labels (B,) int64 in 0..classes -> (B, C, H, W)."""
        condition = F.silu(
            self.embed_time(time_embedding(t, self.width)) + self.embed_class(labels)
        )
        h = self.enter(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for i in range(len(self.shrink) + 1):
            if i > 0:
                h = self.shrink[i - 1](h)
            for block in self.down[i * self.blocks : (i + 1) * self.blocks]:
                h = block(h, condition)
                skips.append(h)
        h = self.middle(self.attention(h), condition)
        for i in reversed(range(len(self.grow) + 1)):
            for block in self.up[i * self.blocks : (i + 1) * self.blocks]:
                h = block(torch.cat([h, skips.pop()], dim=1), condition)
            if i > 0:
                h = self.grow[i - 1](F.interpolate(h, scale_factor=2.0))
        out: Tensor = self.leave(F.silu(self.norm(h)))
        return out

    def matrices(self) -> list[nn.Parameter]:
        """The weights that Muon trains: matrices inside the network.

        AdamW trains the layers that read pixels, times and classes, and the one that outputs pixels
        (Jordan et al. 2024).
        """
        rims = ("embed_", "enter.", "leave.")
        named = self.named_parameters()
        return [p for name, p in named if p.ndim == 2 and not name.startswith(rims)]
