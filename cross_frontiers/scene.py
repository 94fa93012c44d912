"""Views of a scene as what is trained on: pictures on a background, and the ray of each pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cross_frontiers import rendering
from cross_frontiers.render import Rays, rays_of
from labkit import UsageError
from labkit.data import ViewData, Views


@dataclass(frozen=True)
class Split:
    """RGBA pictures (N, 4, H, W) in [0, 1], the same laid on the background (N, 3, H, W), the
    cameras' poses (N, 4, 4), and the rays of all pixels, view by view."""

    rgba: Tensor
    pictures: Tensor
    poses: Tensor
    rays: Rays

    @property
    def pixels(self) -> Tensor:
        """What each ray shows, with its opacity: (R, 4)."""
        return self.rgba.permute(0, 2, 3, 1).reshape(-1, 4)

    @property
    def masks(self) -> Tensor:
        """The pixels that show something: bool (N, H, W)."""
        return self.rgba[:, 3] > 0

    def centre(self) -> Tensor:
        """Numbers of the rays in the middle half of each picture, both ways."""
        count, _, height, width = self.pictures.shape
        inside = torch.zeros(count, height, width, dtype=torch.bool, device=self.pictures.device)
        inside[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = True
        return inside.view(-1).nonzero()[:, 0]


@dataclass(frozen=True)
class Scene:
    """The three splits of a scene at one size."""

    train: Split
    valid: Split
    test: Split
    bound: float
    focal: float
    near: float
    far: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.train.pictures.shape[2:]
        return height, width

    @property
    def radius(self) -> float:
        """The distance of the first test camera from the origin."""
        return self.test.poses[0, :3, 3].norm().item()

    def rays(self, poses: Tensor) -> Rays:
        """The rays of all pixels of cameras (N, 4, 4) like those of the scene."""
        return rays_of(poses, self.focal, *self.size, self.bound, self.near, self.far)


def reduce(pictures: Tensor, factor: int) -> Tensor:
    """RGBA pictures (N, 4, H, W) in [0, 1], each pixel the mean of factor x factor. Colours are
    weighted by their opacity, so that what is transparent has no colour to give.
    """
    colour, alpha = pictures[:, :3], pictures[:, 3:]
    pool = torch.nn.functional.avg_pool2d
    mean = pool(alpha, factor)
    return torch.cat((pool(colour * alpha, factor) / mean.clamp(min=1e-6), mean), dim=1)


def prepare(data: ViewData, side: int, background: float, device: torch.device) -> Scene:
    """The scene with pictures of `side` pixels across, on a background.

    Raises UsageError when the pictures' width is not a multiple of `side`.
    """
    width = data.train.x.shape[3]
    if width % side or data.train.x.shape[2] % (width // side):
        fitting = [width // f for f in range(1, width) if width % f == 0 and width // f >= 11]
        raise UsageError(
            f"side={side}: the views of {data.name} are {width} pixels wide, which must be a "
            f"multiple of it; try side={min(fitting, key=lambda each: abs(each - side))}"
        )
    focal = data.focal * side / width

    def split(views: Views) -> Split:
        rgba = reduce(torch.from_numpy(views.x.copy()).float() / 255, width // side).to(device)
        pictures = rendering.on_background(rgba, background)
        poses = torch.from_numpy(views.poses).float().to(device)
        camera = (focal, *pictures.shape[2:], data.bound, data.near, data.far)
        return Split(rgba, pictures, poses, rays_of(poses, *camera))

    return Scene(
        split(data.train), split(data.valid), split(data.test),
        data.bound, focal, data.near, data.far,
    )  # fmt: skip
