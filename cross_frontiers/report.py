"""What a run leaves behind: metrics, views beside the truth, a turntable and a mesh."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cross_frontiers import figures, mesh, metrics
from cross_frontiers.cameras import turntable
from cross_frontiers.evaluate import Show, compare, look
from cross_frontiers.occupancy import cell_middles
from cross_frontiers.render import Field
from cross_frontiers.scene import Scene
from labkit import Run

SHOWN = 3
"""Test views in the picture."""
MESH_SIDE, MESH_DENSITY = 96, 10.0
"""Places along an axis at which the mesh looks up the density, and the density of its surface."""


def report(run: Run, show: Show, scene: Scene, background: float, frames: int) -> dict[str, float]:
    """Draw samples/views.png and samples/turntable.gif; returns the headline metrics."""
    test = scene.test
    pictures, depth = show(test.poses)
    found = compare(pictures, test.pictures)
    blank = torch.full_like(test.pictures, background)
    found["blank_psnr"] = compare(blank, test.pictures)["psnr"]
    shown = np.linspace(0, len(pictures) - 1, min(SHOWN, len(pictures))).round().astype(int)
    rows = torch.from_numpy(shown)
    run.figure(
        "views",
        figures.beside_truth(
            _hwc(pictures[rows]), _hwc(test.pictures[rows]),
            figures.shade_depth(depth[rows].cpu().numpy(), *_range(scene)),
            metrics.psnr(pictures[rows], test.pictures[rows]).cpu().numpy(),
        ),
    )  # fmt: skip
    if frames:
        draw_turntable(run, show, scene, frames)
    return {**found, "valid_psnr": look(show, scene.valid)}


def draw_turntable(run: Run, show: Show, scene: Scene, frames: int) -> None:
    """Once around the scene, its depth beside it."""
    pictures, depth = show(turntable(frames, scene.radius, 0.5).to(scene.test.pictures.device))
    shaded = figures.shade_depth(depth.cpu().numpy(), *_range(scene))
    colours = (_hwc(pictures) * 255).round().astype(np.uint8)
    run.gif("turntable", list(np.concatenate((colours, shaded), axis=2)), fps=12)


@torch.no_grad()
def save_mesh(run: Run, field: Field, eyes: Tensor) -> None:
    """mesh.ply in the run's folder: the surface where the density passes MESH_DENSITY, in its mean
    colour as seen from `eyes` (K, 3). Nothing where there is no such surface."""
    device = next(iter(field.parameters())).device  # type: ignore[attr-defined]
    points = cell_middles(MESH_SIDE, field.bound).to(device)
    inside = field.occupancy.at(points).nonzero()[:, 0]
    sigma = torch.zeros(len(points), device=device)
    for part in inside.split(1 << 17):
        sigma[part] = field.density(points[part])[0]
    values = sigma.view(MESH_SIDE, MESH_SIDE, MESH_SIDE).cpu().numpy()
    if not (values > MESH_DENSITY).any():
        return
    places, faces = mesh.isosurface(values, MESH_DENSITY)
    world = ((places + 0.5) / MESH_SIDE * 2 - 1) * field.bound
    at = torch.from_numpy(world).float().to(device)
    colours = [
        torch.stack([field.colour(field.density(p)[1], normalize(p - eye, dim=1)) for eye in eyes])
        for p in at.split(1 << 17)
    ]
    mesh.save_ply(
        run.dir / "mesh.ply", world, faces,
        (torch.cat(colours, dim=1).mean(dim=0).cpu().numpy() * 255).round().astype(np.uint8),
    )  # fmt: skip
    run.note(mesh_triangles=len(faces))


def _range(scene: Scene) -> tuple[float, float]:
    """Distances that the shades of depth cover: the cube as seen by the cameras."""
    return scene.radius - scene.bound, scene.radius + scene.bound


def _hwc(pictures: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [0, 1] as (N, H, W, 3)."""
    return np.asarray(pictures.permute(0, 2, 3, 1).cpu().numpy())
