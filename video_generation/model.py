"""Week 10's U-Net made into a network for clips, factorised over space and time.

    clip -> [blocks of each frame by itself; attention of each pixel over time] x levels -> clip

(Ho et al. 2022, "Video Diffusion Models", section 3, and "Imagen Video", section 2.3.) Every layer
of the image network stays what it is: it sees the frames of all clips as one batch of pictures.
What is new is a layer after each level in which a pixel attends to itself at the other times. Its
output starts at 0, so a new video network computes, frame by frame, exactly what the image network
would, and it can be trained on pictures and clips together.

Each frame has a noise level of its own. That is all that conditioning needs: a given frame is one
at level 0, or slightly above.

Letters: B clips, T frames, C channels, H height, W width, P = H W pixels, D channels of the
condition, M pictures appended to a clip.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import sinusoidal
from diffusion import UNet, time_embedding
from labkit import exercise

HEAD = 16
"""Channels of an attention head."""


@exercise(minutes=15)
def over_time(x: Tensor, frames: int) -> Tensor:
    """Frames as a batch of pictures -> one sequence over time for each pixel of each clip.

    (B T, C, H, W) -> (B, H W, T, C), pixels row by row. Frame t of clip b is picture b T + t.
    `frames` is T. `over_space` is the way back.
    """
    clips = x.unflatten(0, (-1, frames)).flatten(3)  # (B, T, C, P)
    return clips.permute(0, 3, 1, 2)


def over_space(x: Tensor, height: int) -> Tensor:
    """The inverse of `over_time`: (B, H W, T, C) -> (B T, C, H, W), H being `height`."""
    return x.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (height, -1))


@exercise(minutes=20)
def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention between the frames, for each pixel by itself (Vaswani et al. 2017, eq. 1).

    softmax(q k^T / sqrt(d) over the frames attended to) v. Pixels, heads and clips do not see each
    other. Written out: over a few frames the fused kernel is slower than two matrix products.

    Args:
        q, k, v: (..., T, d), frames in the last axis but one.
        mask: bool (T, T), True where the frame of the row may attend to the frame of the column; at
            least one in each row. None: all to all.
    Returns:
        (..., T, d) in the type of v, which the weights are computed in as well.
    """
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1).to(v.dtype) @ v


@exercise(minutes=15)
def joint_mask(frames: int, pictures: int, device: torch.device | None = None) -> Tensor:
    """Which of the T frames of a clip and the M pictures appended to it may attend to which.

    Frames attend to all frames of the clip and to no picture. A picture attends to itself alone: it
    is a clip of one frame (Ho et al. 2022, section 3.1).

    Returns:
        bool (T + M, T + M) on `device`, True where row may attend to column.
    """
    of_clip = torch.arange(frames + pictures, device=device) < frames
    itself = torch.eye(frames + pictures, dtype=torch.bool, device=device)
    return (of_clip[:, None] & of_clip) | itself


class TemporalAttention(nn.Module):
    """Each pixel attends to itself at the other times; a residual layer that starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD)
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, frames: int, pictures: int = 0) -> Tensor:
        """x (B (T + M), C, H, W) -> the same shape. The M last of each T + M are pictures."""
        tokens = over_time(x, frames + pictures)
        place = sinusoidal(frames, x.shape[1], device=x.device)
        place = torch.cat([place, place[:1].expand(pictures, -1)])  # a picture is a first frame
        qkv = self.qkv(self.norm(tokens) + place).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, P, heads, T + M, C / heads)
        mask = joint_mask(frames, pictures, x.device) if pictures else None
        h = attend(q, k, v, mask).transpose(2, 3).flatten(3)
        return x + over_space(self.out(h), x.shape[2])


class VideoUNet(UNet):
    """Noisy clips and the noise level of each frame -> the velocity in their shape.

    The image network's weights keep their names, so this inflates a trained one:
    `load_state_dict(image.state_dict(), strict=False)`.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        patch: int = 1,
        low: bool = False,
    ) -> None:
        """
        Args:
            patch: the network works on patches of patch x patch pixels, as channels, and so on
                fewer places: most of the time is spent at the first level.
            low: the network also sees another, less detailed clip of the same size.
        """
        super().__init__(channels * patch**2, 0, width, multipliers, blocks)
        self.shape = {
            "channels": channels,
            "width": width,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "patch": patch,
            "low": low,
        }
        self.patch = patch
        widths = [width * m for m in multipliers]
        self.time_down = nn.ModuleList(map(TemporalAttention, widths))
        self.time_middle = TemporalAttention(widths[-1])
        self.time_up = nn.ModuleList(map(TemporalAttention, widths))
        # A convolution is linear: this one beside `enter` is `enter` over twice the channels.
        self.enter_low = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1) if low else None
        self.embed_level = nn.Linear(width, 4 * width) if low else None
        for layer in (self.enter_low, self.embed_level):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        times: Tensor,
        low: Tensor | None = None,
        level: Tensor | None = None,
        pictures: int = 0,
    ) -> Tensor:
        """
        Args:
            x: (B, T + M, C, H, W), the last M = `pictures` of which are no part of the clip.
            times: (B, T + M), the noise level of each in [0, 1].
            low, level: of a network with `low`: (B, T, C, H, W) and its noise level, (B,).
        Returns:
            (B, T + M, C, H, W).
        """
        T = x.shape[1] - pictures
        condition = self.embed_time(time_embedding(times.flatten(), self.width))
        h = self.enter(self.patches(x))
        if self.enter_low is not None and self.embed_level is not None:
            assert low is not None
            assert level is not None
            h = h + self.enter_low(self.patches(low))
            told = self.embed_level(time_embedding(level, self.width))
            condition = condition + told.repeat_interleave(T, dim=0)
        condition = F.silu(condition + self.embed_class.weight[self.null])
        skips = []
        for i in range(len(self.shrink) + 1):
            if i > 0:
                h = self.shrink[i - 1](h)
            for block in self.down[i * self.blocks : (i + 1) * self.blocks]:
                h = block(h, condition)
                skips.append(h)
            h = self.time_down[i](h, T, pictures)
        h = self.middle(self.time_middle(self.attention(h), T, pictures), condition)
        for i in reversed(range(len(self.grow) + 1)):
            for block in self.up[i * self.blocks : (i + 1) * self.blocks]:
                h = block(torch.cat([h, skips.pop()], dim=1), condition)
            h = self.time_up[i](h, T, pictures)
            if i > 0:
                h = self.grow[i - 1](F.interpolate(h, scale_factor=2.0))
        out = F.pixel_shuffle(self.leave(F.silu(self.norm(h))), self.patch)
        return out.unflatten(0, x.shape[:2])

    def patches(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B T, C p^2, H / p, W / p), the pixels of a patch as channels."""
        pictures = F.pixel_unshuffle(x.flatten(0, 1), self.patch)
        return pictures.contiguous(memory_format=torch.channels_last)
