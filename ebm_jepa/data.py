"""Pictures that are not from the training set's distribution, made to look like its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LETTERS = "ACEFHKMNPRUVWXY"
"""Letters that look like no digit."""


def like(images: Tensor, image: tuple[int, int, int]) -> Tensor:
    """uint8 (N, C', H', W') as uint8 (N, C, H, W): grey levels averaged or repeated over the
    channels, resized bilinearly.
    """
    channels, height, width = image
    x = images.float()
    if x.shape[1] != channels:
        x = x.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
    if x.shape[2:] != (height, width):
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return x.round().clamp(0, 255).to(torch.uint8)


def letters(count: int, seed: int) -> Tensor:
    """White letters on black in the fonts that matplotlib brings, uint8 (count, 1, 28, 28).

    Size, angle, place and font are drawn at random; as in MNIST, the longer side is about 20 pixels
    and the centre of mass lies in the middle.
    """
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(mpl.get_data_path(), "fonts", "ttf")
    files = sorted(f for f in folder.glob("DejaVuSans*.ttf") if "Display" not in f.name)
    fonts = [ImageFont.truetype(str(file), 64) for file in files]
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        sheet = Image.new("L", (112, 112))
        letter = LETTERS[rng.integers(len(LETTERS))]
        font = fonts[rng.integers(len(fonts))]
        ImageDraw.Draw(sheet).text((56, 56), letter, fill=255, font=font, anchor="mm")
        sheet = sheet.rotate(rng.uniform(-15, 15), resample=Image.Resampling.BILINEAR)
        box = sheet.getbbox()
        assert box is not None
        cut = sheet.crop(box)
        scale = rng.uniform(18, 21) / max(cut.size)
        size = (max(1, round(cut.width * scale)), max(1, round(cut.height * scale)))
        made.append(_centred(np.asarray(cut.resize(size, Image.Resampling.BOX))))
    return torch.from_numpy(np.stack(made)[:, None])


def _centred(letter: np.ndarray) -> np.ndarray:
    """On a black square of 28 x 28, the centre of mass in its middle as far as it fits."""
    height, width = letter.shape
    total = letter.sum()
    row = (letter.sum(axis=1) * np.arange(height)).sum() / total
    column = (letter.sum(axis=0) * np.arange(width)).sum() / total
    top = int(np.clip(round(13.5 - row), 0, 28 - height))
    left = int(np.clip(round(13.5 - column), 0, 28 - width))
    square = np.zeros((28, 28), np.uint8)
    square[top : top + height, left : left + width] = letter
    return square
