"""Pools of pictures with captions: rendered scenes, a set of the registry, or a folder.

A pool that is measured on is one gallery, or several side by side. In a gallery no two pictures
mean the same, so that a caption has one right picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import Run, UsageError
from labkit.data import CaptionedImages, ImageTextData, check_share, epoch_order
from labkit.data.kinds import DataError
from labkit.data.sets.captions import read_splits
from multimodal import scenes
from multimodal.scenes import Scenes

RENDERS = 8
"""Pictures of each combination in a gallery of scenes."""
PAIRS = 512
"""Scenes with two objects in a gallery."""


@dataclass(frozen=True)
class Pool:
    """Pictures uint8 (N, 3, S, S), the captions of each, and numbers equal where they mean the
    same, int64 (N,)."""

    pictures: Tensor
    captions: tuple[tuple[str, ...], ...]
    meaning: Tensor
    scenes: Scenes | None = None
    gallery: int | None = None
    """Pictures of each gallery; None: the whole pool is one."""
    opposite: Tensor | None = None
    """For each picture one that is nearly the same, int64 (N,): a hard negative."""

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Pools:
    """What a run learns from and is measured on."""

    train: Pool
    valid: Pool
    test: Pool
    test_pairs: Pool | None = None
    """Scenes alone: with two objects."""

    def digest(self) -> str:
        """SHA-256 over all pictures, captions and meanings."""
        total = hashlib.sha256()
        for pool in (self.train, self.valid, self.test, self.test_pairs):
            if pool is not None:
                total.update(np.ascontiguousarray(pool.pictures.numpy()).data)
                total.update(json.dumps(pool.captions).encode())
        return total.hexdigest()


def of_scenes(found: Scenes, side: int, seed: int, gallery: int | None = None) -> Pool:
    """The scenes rendered."""
    pictures = torch.from_numpy(scenes.render(found, side, seed))
    meaning = torch.from_numpy(found.meaning)
    return Pool(pictures, scenes.captions_of(found), meaning, found, gallery)


def training_scenes(count: int, alone: float, side: int, hard: bool) -> Pool:
    """Scenes of the training combinations alone; if `hard`, every other one is the opposite of the
    one before.
    """
    among = scenes.combinations("train")
    if not hard:
        return of_scenes(scenes.draw(count, among, alone, seed=1), side, seed=1)
    half = scenes.draw((count + 1) // 2, among, alone, seed=1)
    both = zip(half, scenes.opposites(half, among, seed=1), strict=True)
    found = Scenes(*(np.stack(each, axis=1).ravel() for each in both))  # (2N,), in turn
    opposite = torch.arange(len(found.first)) ^ 1  # 1, 0, 3, 2, ...
    return replace(of_scenes(found, side, seed=1), opposite=opposite)


def scene_pools(count: int, alone: float, side: int, hard: bool = False) -> Pools:
    """Scenes, the same in every run: training ones, and galleries with RENDERS pictures of each
    combination. That for choosing settings has no combination of the test.
    """
    both = scenes.combinations("train", "valid")
    everything = np.arange(scenes.COMBINATIONS)
    return Pools(
        training_scenes(count, alone, side, hard),
        of_scenes(scenes.singles(np.tile(both, RENDERS)), side, 2, len(both)),
        of_scenes(scenes.singles(np.tile(everything, RENDERS)), side, 3, len(everything)),
        of_scenes(scenes.distinct_pairs(PAIRS, everything, seed=4), side, seed=4),
    )


def set_pools(data: ImageTextData, side: int, validation: float) -> Pools:
    """A set's pictures at this side; `validation` is the share of the training pictures held out
    for choosing settings. Raises UsageError when that leaves nothing on one side.
    """
    check_share(len(data.train), validation)
    order = epoch_order(len(data.train), 0, seed=0)  # the same ones in every run
    held = round(validation * len(data.train))
    return Pools(
        _part(data.train, np.sort(order[held:]), side),
        _part(data.train, np.sort(order[:held]), side),
        _part(data.test, np.arange(len(data.test)), side),
    )


def _part(split: CaptionedImages, index: np.ndarray, side: int) -> Pool:
    captions = tuple(split.captions[i] for i in index)
    numbers: dict[str, int] = {}
    meaning = [numbers.setdefault(texts[0].lower(), len(numbers)) for texts in captions]
    pictures = resized(torch.from_numpy(split.x[index]), side)
    return Pool(pictures, captions, torch.tensor(meaning))


def resized(pictures: Tensor, side: int) -> Tensor:
    """uint8 (N, 3, H, H) -> uint8 (N, 3, side, side), by bicubic interpolation, smoothed."""
    if pictures.shape[-1] == side:
        return pictures
    parts = [
        F.interpolate(part.float(), (side, side), mode="bicubic", antialias=True)
        for part in pictures.split(256)  # in floating point a picture is four times as large
    ]
    return torch.cat([part.clamp(0, 255).round().byte() for part in parts])


def obtain(
    run: Run, name: str, folder: str | None, side: int, validation: float, count: int, alone: float,
    hard: bool,
) -> Pools:  # fmt: skip
    """The pools that `data=` names, recorded as the run's data.

    Raises UsageError for settings that do not fit each other, DataError for a bad folder.
    """
    if name == "scenes":
        pools = scene_pools(count, alone, side, hard)
        sizes = {"train": len(pools.train), "valid": len(pools.valid), "test": len(pools.test)}
        run.generated(name, sizes, pools.digest())
        return pools
    if name == "folder":
        data = open_folder(folder, side)
        run.generated(name, data.sizes(), data.digest())
    else:
        data = run.data(name, ImageTextData)
    return set_pools(data, side, validation)


def open_folder(folder: str | None, side: int) -> ImageTextData:
    """The image-caption pairs in a folder of one's own. Raises UsageError without one, DataError
    when it holds none.
    """
    if folder is None:
        raise UsageError(
            "data=folder needs the folder: type folder=/path/to/pictures, with train/ and test/ "
            "in it, or data=scenes, which needs none"
        )
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"folder={folder} is not a folder; type the path of one that is there")
    data = read_splits(path, "folder", "folder", side)
    data.check()
    return data


def flat_captions(pool: Pool) -> tuple[list[str], Tensor]:
    """All captions of a pool in one list, and the picture of each, int64 (M,)."""
    flat = [text for texts in pool.captions for text in texts]
    counts = torch.tensor([len(texts) for texts in pool.captions])
    return flat, torch.arange(len(counts)).repeat_interleave(counts)


def with_opposites(drawn: np.ndarray, pool: Pool) -> np.ndarray:
    """A batch of as many pictures as were drawn, (B,): the first half of them, each followed by its
    opposite. Without opposites the batch is what was drawn.
    """
    if pool.opposite is None:
        return drawn
    half = drawn[: (len(drawn) + 1) // 2]
    both: np.ndarray = np.stack([half, pool.opposite.numpy()[half]], axis=1).ravel()[: len(drawn)]
    return both


class Drawer:
    """Chooses the caption that stands for a picture in a step: a function of (seed, step)."""

    def __init__(self, captions: Sequence[Sequence[str]], seed: int) -> None:
        self.seed = seed
        counts = np.array([len(texts) for texts in captions])
        self.counts, self.starts = counts, np.cumsum(counts) - counts

    def draw(self, index: np.ndarray, step: int) -> np.ndarray:
        """For pictures `index` (B,), places in `flat_captions`' list, int64 (B,)."""
        rng = np.random.default_rng((self.seed, step, 1))
        chosen: np.ndarray = self.starts[index] + rng.integers(self.counts[index])
        return chosen
