"""Pictures of a cloud of Gaussians: each is laid on the pixels that it covers, front to back
(Kerbl et al. 2023, section 6).

The picture is cut into tiles of TILE x TILE pixels, and each tile gets a list of the Gaussians that
reach into it, the nearest first. Letters: N Gaussians, M pairs of a tile and a Gaussian in it, in
the order of tiles and then of depth, Q = TILE^2 pixels of a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cross_frontiers.cameras import project
from cross_frontiers.gaussians import Gaussians, carve, project_covariance
from cross_frontiers.occupancy import cell_middles
from cross_frontiers.scene import Split

TILE = 5
FAINT = 1 / 255
"""What hides less of a pixel is left out."""
BLUR = 0.3
"""Square pixels added to every Gaussian: none falls between the pixels (Kerbl et al. 2023)."""


def splat(
    cloud: Gaussians,
    pose: Tensor,
    focal: float,
    height: int,
    width: int,
    background: float | Tensor,
    far: float,
) -> tuple[Tensor, Tensor]:
    """The picture (3, H, W) of a cloud, and the mean distance (H, W) at which its rays end; what
    passes through ends at `far`. The background is a grey level or a colour (3,)."""  # fmt: skip
    at, depth = project(cloud.means, pose, focal, height, width)
    shape = project_covariance(
        cloud.covariances(), (cloud.means - pose[:3, 3]) @ pose[:3, :3], pose[:3, :3], focal
    )
    shape = shape + BLUR * torch.eye(2, device=shape.device)
    opacity = cloud.raw_opacities.sigmoid()
    down, across = -(-height // TILE), -(-width // TILE)
    number, tile = pairs(at, shape, opacity, depth, down, across)
    values = torch.cat(
        (cloud.colours(pose[:3, 3]), (cloud.means - pose[:3, 3]).norm(dim=1, keepdim=True)), dim=1
    )
    weights = tile_weights(at[number], shape[number], opacity[number], tile, across)
    sums = weights.new_zeros(down * across, TILE**2, 4)
    sums = sums.index_add(0, tile, weights[..., None] * values[number][:, None])
    through = 1 - weights.new_zeros(down * across, TILE**2).index_add(0, tile, weights)
    behind = sums.new_full((4,), far)
    behind[:3] = background
    whole = (sums + through[..., None] * behind).view(down, across, TILE, TILE, 4)
    whole = whole.permute(4, 0, 2, 1, 3).reshape(4, down * TILE, across * TILE)
    return whole[:3, :height, :width], whole[3, :height, :width]


@torch.no_grad()
def pairs(
    at: Tensor, shape: Tensor, opacity: Tensor, depth: Tensor, down: int, across: int
) -> tuple[Tensor, Tensor]:
    """Which Gaussian reaches into which tile: numbers (M,) of Gaussians and of tiles, in order.

    A Gaussian of opacity o is above FAINT where its exponent is below 2 log(o / FAINT); the box
    around this ellipse has the half sides sqrt(2 log(o / FAINT) variance). None is taken that is
    not before the camera.
    """
    reach = (2 * (opacity / FAINT).log()).clamp(min=0).sqrt()
    half = reach[:, None] * shape.diagonal(dim1=1, dim2=2).sqrt()
    size = torch.tensor((down, across), device=at.device)
    low = ((at - half) / TILE).floor().clamp(min=0).minimum(size).long()
    high = ((at + half) / TILE).floor().clamp(min=-1).minimum(size - 1).long()
    sides = (high - low + 1).clamp(min=0) * ((depth > 0.1) & (reach > 0))[:, None]
    order = depth.argsort()
    count = sides.prod(dim=1)[order]
    number = order.repeat_interleave(count)
    first = count.cumsum(0) - count
    local = torch.arange(len(number), device=at.device) - first.repeat_interleave(count)
    row = low[number, 0] + local // sides[number, 1]
    column = low[number, 1] + local % sides[number, 1]
    tile, places = (row * across + column).sort(stable=True)  # keeps the order of depth
    return number[places], tile


def tile_weights(at: Tensor, shape: Tensor, opacity: Tensor, tile: Tensor, across: int) -> Tensor:
    """How much each pair contributes to each pixel of its tile, (M, Q): its alpha, times what the
    pairs before it in the same tile let through.

    Args:
        at: where the Gaussian's middle is, row and column (M, 2). shape: (M, 2, 2).
        opacity: (M,). tile: (M,), rising.
    """
    line = torch.arange(TILE, device=at.device) + 0.5
    corner = torch.stack((tile // across, tile % across), dim=1) * TILE
    y, x = ((corner - at)[:, :, None] + line).unbind(dim=1)  # (M, TILE) each
    a, b, c = shape[:, 0, 0, None], shape[:, 0, 1, None], shape[:, 1, 1, None]
    inverse = 1 / (a * c - b * b)
    exponent = (c * inverse * y * y)[:, :, None] + (a * inverse * x * x)[:, None]
    exponent = exponent - 2 * ((b * inverse * y)[:, :, None] * x[:, None])
    alpha = (opacity[:, None] * torch.exp(-0.5 * exponent).flatten(1)).clamp(max=0.99)
    alpha = alpha * (alpha > FAINT)
    return alpha * before(torch.log1p(-alpha), tile).exp()


def before(values: Tensor, run: Tensor) -> Tensor:
    """For each row of values (M, Q) the sum of the rows before it in the same run; equal numbers in
    `run` (M,) follow each other. Summed in float64, since the sum goes on from run to run."""
    total = values.double().cumsum(dim=0) - values
    first = torch.searchsorted(run, run)  # the first row of the run
    return (total - total[first]).to(values.dtype)


@torch.no_grad()
def scatter(split: Split, count: int, degree: int, focal: float, bound: float) -> Gaussians:
    """A cloud of `count` Gaussians, at random in the cells of the cube that are on the surface of
    the visual hull of a split's pictures; their size is that of a cell."""
    side = 64
    points = cell_middles(side, bound).to(split.poses.device)
    hull = carve(points, split.masks, split.poses, focal).view(1, 1, side, side, side)
    inner = torch.nn.functional.max_pool3d((~hull).float(), 3, stride=1, padding=1) == 0
    surface = (hull & ~inner).view(-1).nonzero()[:, 0]
    if not len(surface):
        surface = torch.arange(len(points), device=points.device)
    chosen = points[surface[torch.randint(len(surface), (count,), device=points.device)]]
    cell = 2 * bound / side
    return Gaussians(chosen + (torch.rand_like(chosen) - 0.5) * cell, cell / 2, degree)


@torch.no_grad()
def splat_views(
    cloud: Gaussians,
    poses: Tensor,
    focal: float,
    height: int,
    width: int,
    background: float,
    far: float,
) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, H, W) and depths (N, H, W) from all poses (N, 4, 4)."""  # fmt: skip
    both = [splat(cloud, pose, focal, height, width, background, far) for pose in poses]
    pictures, depths = zip(*both, strict=True)
    return torch.stack(pictures).clamp(0, 1), torch.stack(depths)
