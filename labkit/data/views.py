"""Pictures of one scene with the camera of each, as novel-view synthesis uses them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from labkit.data.kinds import Dataset


@dataclass(frozen=True)
class Views:
    """Pictures `x`, uint8 (N, 4, H, W), colour and opacity, and the pose of each, float64
    (N, 4, 4): from the camera's coordinates to the world's.

    A camera looks along -z, x is to its right and y up (the convention of Blender and OpenGL).
    """

    x: np.ndarray
    poses: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class ViewData(Dataset):
    """Views of one scene in three splits; one focal length, in pixels, for all.

    The scene lies between the distances `near` and `far` of every camera, inside the cube from
    -bound to bound. Colours are not multiplied by the opacity.
    """

    train: Views
    valid: Views
    test: Views
    focal: float
    near: float
    far: float
    bound: float

    def check(self) -> None:
        """Raises DataError for an empty split, pictures of other sizes, or an impossible camera."""
        self._refuse_empty("train", "valid", "test")
        self._refuse_unless(
            math.isfinite(self.focal) and self.focal > 0,
            f"its focal length is {self.focal}, not a number of pixels above 0",
        )
        self._refuse_unless(
            0 <= self.near < self.far < math.inf,
            f"near={self.near} and far={self.far}: 0 <= near < far is needed",
        )
        self._refuse_unless(
            0 < self.bound < math.inf, f"bound={self.bound}: half a side of its cube, above 0"
        )
        for name in ("train", "valid", "test"):
            views: Views = getattr(self, name)
            self._refuse_unless(
                views.x.dtype == np.uint8 and views.x.shape[1:] == (4, *self.train.x.shape[2:]),
                f"its {name} pictures are {views.x.dtype} {views.x.shape}, not bytes (N, 4, H, W) "
                "of one size",
            )
            self._refuse_unless(
                views.poses.shape == (len(views), 4, 4),
                f"it has {len(views)} {name} pictures and poses {views.poses.shape}",
            )
            for number, pose in enumerate(views.poses):
                self._refuse_unless(
                    rigid(pose), f"the pose of {name} view {number} is not a rotation and a shift"
                )

    def sizes(self) -> dict[str, int]:
        """Views of each split."""
        return {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}

    def digest(self) -> str:
        """SHA-256 over the bytes of pictures and poses, split by split, and the four numbers."""
        total = hashlib.sha256()
        for split in (self.train, self.valid, self.test):
            total.update(np.ascontiguousarray(split.x).data)
            total.update(np.ascontiguousarray(split.poses, np.float64).data)
        total.update(np.array([self.focal, self.near, self.far, self.bound]).data)
        return total.hexdigest()


def rigid(pose: np.ndarray) -> bool:
    """Whether a pose (4, 4) is a rotation and a shift: no scale, no reflection, all finite."""
    rotation = pose[:3, :3]
    return bool(
        np.isfinite(pose).all()
        and np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-4)
        and np.linalg.det(rotation) > 0
        and np.allclose(pose[3], (0, 0, 0, 1), atol=1e-6)
    )
