"""Folders of images, as a practitioner has them, in one tensor; what does not fit is refused.

Nothing is resized, cropped or converted to grey here. Each of these changes every metric: resizing
without antialiasing alone shifts a Frechet distance by more than many papers' improvements (Parmar,
Zhang, Zhu 2022).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from labkit import UsageError, paths

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
MODES = {"L": 1, "RGB": 3}
"""Kinds of images that can be measured, as Pillow names them, with their channels."""


def read_folder(typed: str) -> Tensor:
    """All images below a folder, in the order of their paths: uint8 (N, C, H, W), C 1 or 3.

    Raises UsageError for a folder that is missing or has no image, for a file that cannot be read,
    for images of different sizes, and for grey images beside coloured ones. It names the file.
    """
    folder = paths.typed(typed)
    if not folder.is_dir():
        raise UsageError(f"{typed} is not a folder; real= and fake= take folders of images")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise UsageError(f"{typed} has no image: none of its files ends in {', '.join(SUFFIXES)}")
    first = _read(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for i, file in enumerate(files):
        image = _read(file)
        if image.shape != first.shape:
            raise UsageError(
                f"{file} is {_words(image)}, and {files[0]} is {_words(first)}. All images of a "
                "folder must have one size and one kind: convert them, the same way in both folders"
            )
        images[i] = image
    return torch.from_numpy(images)


def _read(file: Path) -> np.ndarray:
    """(C, H, W), uint8."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            found = image.convert("RGB") if image.mode == "P" else image
            if found.mode not in MODES:
                raise UsageError(
                    f"{file} is of Pillow's mode {found.mode} (transparency, or more than 8 bits a "
                    "channel); save it as plain 8-bit RGB or grey"
                )
            pixels = np.asarray(found)
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{file} cannot be read as an image: {error}") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _words(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{'grey' if channels == 1 else 'RGB'}, {width} x {height}"


def check_pair(real: Tensor, fake: Tensor) -> None:
    """Raises UsageError unless both sets have one shape of image, and the real ones differ."""
    if real.shape[1:] != fake.shape[1:]:
        raise UsageError(
            f"the real images are {_words(real[0].numpy())} and the fake ones "
            f"{_words(fake[0].numpy())}. Convert one set, with antialiasing; grey beside RGB would "
            "measure the colour alone"
        )
    if identical(real):
        raise UsageError(f"all {len(real):,} real images are identical: they have no distribution")


def identical(pictures: Tensor) -> bool:
    """Whether all of two or more pictures are the same one."""
    return len(pictures) > 1 and bool((pictures == pictures[:1]).all())


def some(pictures: Tensor, count: int, seed: int) -> Tensor:
    """`count` of the pictures, at random: folders are often sorted by class."""
    order = np.random.default_rng(seed).permutation(len(pictures))[:count]
    return pictures[torch.from_numpy(np.sort(order))]
