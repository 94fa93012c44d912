"""Views of a scene in the layout of NeRF's synthetic scenes (Mildenhall et al. 2020): for each
split a transforms_<split>.json with `camera_angle_x`, the horizontal field of view in radians, and
`frames`, each with a `file_path` without `.png` and a `transform_matrix`, camera to world.

    lego    85 + 5 + 10 views of a toy excavator, 200 x 200
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from labkit.data.files import FIX, decode
from labkit.data.kinds import DataError
from labkit.data.sets.images import source_of
from labkit.data.views import ViewData, Views

LEGO = "nerf_lego"
LEGO_URL = "https://github.com/shouxieai/nerf"
SPLITS = {"train": "train", "valid": "val", "test": "test"}
NEAR, FAR, BOUND = 2.0, 6.0, 1.5
"""Bounds of NeRF's synthetic scenes, whose cameras are at radius 4."""


def read_lego(folder: Path) -> ViewData | None:
    """lego from a data folder; None when it is not there."""
    place = folder / LEGO
    if not (place / "transforms_train.json").is_file():
        return None
    return read_views(place, "lego", source_of(folder))


def read_views(root: Path, name: str, source: str) -> ViewData:
    """The scene below `root`. A picture without opacity is opaque everywhere.

    Raises DataError that names the file and what is wrong with it.
    """
    splits, focals = {}, {}
    for split, word in SPLITS.items():
        file = root / f"transforms_{word}.json"
        splits[split], focals[split] = _split(file)
    if max(focals.values()) - min(focals.values()) > 1e-3:
        raise DataError(f"{root}: the splits have different focal lengths {focals}: {FIX}")
    return ViewData(name, source, **splits, focal=focals["train"], near=NEAR, far=FAR, bound=BOUND)


def _split(file: Path) -> tuple[Views, float]:
    try:
        content = json.loads(decode(file.read_bytes(), file))
        angle, frames = float(content["camera_angle_x"]), list(content["frames"])
        named = [(str(frame["file_path"]), _matrix(frame)) for frame in frames]
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): {FIX}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{file} is not an object with camera_angle_x and frames, each with file_path and "
            f"transform_matrix ({type(error).__name__}: {error}): {FIX}"
        ) from error
    if not named:
        raise DataError(f"{file} has no views: {FIX}")
    if not 0 < angle < math.pi:
        raise DataError(f"{file}: camera_angle_x={angle} is not between 0 and pi: {FIX}")
    pictures = [_picture(file.parent / f"{path}.png") for path, _ in named]
    for (path, _), picture in zip(named, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            raise DataError(
                f"{file}: {path} is {picture.shape[2]} x {picture.shape[1]} pixels and the first "
                f"view {pictures[0].shape[2]} x {pictures[0].shape[1]}: views must be of one size"
            )
    views = Views(np.stack(pictures), np.stack([pose for _, pose in named]))
    return views, 0.5 * views.x.shape[3] / math.tan(0.5 * angle)


def _matrix(frame: Any) -> np.ndarray:
    pose = np.asarray(frame["transform_matrix"], np.float64)
    if pose.shape != (4, 4):
        raise ValueError(f"transform_matrix has shape {pose.shape}, not (4, 4)")
    return pose


def _picture(file: Path) -> np.ndarray:
    """uint8 (4, H, W)."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGBA"), np.uint8).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"the view {file} cannot be read ({error}): {FIX}") from error
