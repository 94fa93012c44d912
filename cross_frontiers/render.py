"""From a field to the colours of rays: where to look, what is there, and the sum of it.

Letters: R rays, S samples of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cross_frontiers import rendering, sampling
from cross_frontiers.cameras import camera_rays, clip_to_cube
from cross_frontiers.occupancy import Occupancy


class Field(Protocol):
    """Density and colour at points of the world, and the cells where there is something."""

    bound: float
    occupancy: Occupancy

    def density(self, points: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]: ...
    def colour(self, features: tuple[Tensor, ...], directions: Tensor) -> Tensor: ...
    def prune(self, threshold: float) -> None: ...


@dataclass(frozen=True)
class Rays:
    """Origins and unit directions (R, 3), and the distances (R,) between which to look."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor

    def __len__(self) -> int:
        return len(self.near)

    def __getitem__(self, index: Tensor | slice) -> Rays:
        return Rays(self.origins[index], self.directions[index], self.near[index], self.far[index])


@dataclass(frozen=True)
class Rendered:
    """Colours (R, 3), opacities (R,) and mean distances (R,) of rays."""

    colour: Tensor
    opacity: Tensor
    depth: Tensor


@dataclass
class RenderSettings:
    """How rays are rendered."""

    samples: int = 64
    """Samples of each ray."""
    fine: int = 0
    """Further samples, drawn where the first ones found something (hierarchical sampling)."""
    background: float = 1.0
    """Grey level behind the scene: 1 is white, 0 black."""
    faint: float = 1e-4
    """Samples that contribute less get no colour: nobody would see it. An untrained grid must be
    above it, or nothing would have a gradient."""


def rays_of(
    poses: Tensor, focal: float, height: int, width: int, bound: float, near: float, far: float
) -> Rays:
    """The rays of all pixels of all poses (N, 4, 4), view by view, row by row, clipped to the
    cube."""
    pairs = [camera_rays(pose, focal, height, width) for pose in poses]
    origins = torch.cat([o.reshape(-1, 3) for o, _ in pairs])
    directions = torch.cat([d.reshape(-1, 3) for _, d in pairs])
    return Rays(origins, directions, *clip_to_cube(origins, directions, bound, near, far))


@torch.no_grad()
def tighten(rays: Rays, occupancy: Occupancy, looks: int = 96) -> tuple[Rays, Tensor]:
    """Those rays that meet an occupied cell, with near and far moved up to it, and their numbers.

    A ray is looked at in `looks` places, and its ends are moved to the last empty place before the
    first occupied one, and to the first empty place after the last one.
    """
    if occupancy.cells.all():
        met = (rays.far > rays.near).nonzero()[:, 0]
        return rays[met], met
    parts, kept = [], []
    for start in range(0, len(rays), 1 << 14):
        part = rays[slice(start, start + (1 << 14))]
        middle = part.near.new_full((len(part), looks), 0.5)
        t = sampling.stratified(part.near, part.far, middle)
        hit = occupancy.at(part.origins[:, None] + t[..., None] * part.directions[:, None])
        hit &= (part.far > part.near)[:, None]
        found = hit.any(dim=1).nonzero()[:, 0]
        first, last = hit[found].int().argmax(1), hit[found].flip(1).int().argmax(1)
        part = part[found]
        step = (part.far - part.near) / looks
        near = torch.maximum(part.near, part.near + (first - 0.5) * step)
        far = torch.minimum(part.far, part.far - (last - 0.5) * step)
        parts.append(Rays(part.origins, part.directions, near, far))
        kept.append(found + start)
    joined = [torch.cat([getattr(p, name) for p in parts]) for name in Rays.__annotations__]
    return Rays(*joined), torch.cat(kept)


def render_rays(
    field: Field,
    rays: Rays,
    settings: RenderSettings,
    training: bool = False,
    behind: Tensor | None = None,
) -> Rendered:
    """Colour, opacity and depth of rays; samples are placed at random only in training. `behind`
    (R, 3) are colours behind the rays, in place of the settings' grey level."""  # fmt: skip
    shape = (len(rays), settings.samples)
    near = rays.near
    jitter = torch.rand(shape, device=near.device) if training else near.new_full(shape, 0.5)
    t = sampling.stratified(near, rays.far, jitter)
    if settings.fine:
        t = _add_fine(field, rays, t, settings.fine, training)
    points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    chosen = field.occupancy.at(points).view(-1).nonzero()[:, 0]
    found, features = field.density(points.view(-1, 3)[chosen])
    sigma = found.new_zeros(t.numel()).index_copy(0, chosen, found).view(t.shape)
    weights = rendering.ray_weights(sigma, rendering.sample_widths(t, rays.far))
    seen = (weights.detach().view(-1)[chosen] > settings.faint).nonzero()[:, 0]
    at = chosen[seen]
    colours = field.colour(
        tuple(each[seen] for each in features), rays.directions[at // t.shape[1]]
    )
    colours = colours.new_zeros(t.numel(), 3).index_copy(0, at, colours).view(*t.shape, 3)
    # A sample too faint to be computed counts as background, so that the weights still sum to 1.
    shown = weights * (weights.detach() > settings.faint)
    return Rendered(
        rendering.composite(shown, colours, settings.background if behind is None else behind),
        weights.sum(dim=1),
        rendering.expected_depth(weights, t, rays.far),
    )


@torch.no_grad()
def _add_fine(field: Field, rays: Rays, t: Tensor, fine: int, training: bool) -> Tensor:
    """The distances t with `fine` more of each ray among them, in order: (R, S + fine)."""
    points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    sigma = field.density(points.view(-1, 3))[0].view(t.shape)
    weights = rendering.ray_weights(sigma, rendering.sample_widths(t, rays.far))
    middles = 0.5 * (t[:, 1:] + t[:, :-1])
    edges = torch.cat((rays.near[:, None], middles, rays.far[:, None]), dim=1)
    u = torch.arange(fine, device=t.device) + (
        torch.rand(len(t), fine, device=t.device) if training else t.new_full((len(t), fine), 0.5)
    )
    return torch.cat((t, sampling.inverse_cdf(edges, weights, u / fine)), dim=1).sort(dim=1).values


@torch.no_grad()
def render_views(
    field: Field, rays: Rays, settings: RenderSettings, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, H, W) and depths (N, H, W) of the rays of whole views; the farthest end of
    all rays where a ray ends in the background."""
    colour = rays.origins.new_full((len(rays), 3), settings.background)
    end = rays.far.amax()  # a ray that misses the cube has no far
    depth = end.expand(len(rays)).clone()
    met, numbers = tighten(rays, field.occupancy)
    for start in range(0, len(met), 4096):
        rows = slice(start, start + 4096)
        part = render_rays(field, met[rows], settings)
        colour[numbers[rows]] = part.colour.clamp(0, 1)
        # What passes through goes on beyond the last occupied cell.
        depth[numbers[rows]] = part.depth + (1 - part.opacity) * (end - met.far[rows])
    pictures = colour.view(-1, height, width, 3).permute(0, 3, 1, 2)
    return pictures.contiguous(), depth.view(-1, height, width)
