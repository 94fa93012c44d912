"""A scene as a cloud of Gaussians, and their shadows on a picture (Kerbl et al. 2023).

Letters: N Gaussians, K harmonics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cross_frontiers.cameras import project
from cross_frontiers.encoding import spherical_harmonics
from labkit import exercise


@exercise(minutes=20)
def covariance(scales: Tensor, quaternions: Tensor) -> Tensor:
    """The covariance of each Gaussian, from its deviations along its own axes and their rotation.

        Sigma = R S S^T R^T,   S = diag(scales)

    R is the rotation of the quaternion (w, x, y, z), w its real part, after it was divided by its
    length. Its rows are

        1 - 2 (y^2 + z^2),   2 (x y - w z),       2 (x z + w y)
        2 (x y + w z),       1 - 2 (x^2 + z^2),   2 (y z - w x)
        2 (x z - w y),       2 (y z + w x),       1 - 2 (x^2 + y^2)

    A product of this form is a covariance whatever the numbers are, so gradient steps cannot make
    it impossible.

    Args:
        scales: (N, 3), above 0.
        quaternions: (N, 4), of any length but 0. Both stay as they are.
    Returns:
        (N, 3, 3), symmetric.
    Source: Kerbl et al. 2023, eq. 6.
    """
    w, x, y, z = F.normalize(quaternions, dim=1).unbind(dim=1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    half = torch.stack(rows, dim=1).view(-1, 3, 3) * scales[:, None]
    return half @ half.transpose(1, 2)


@exercise(minutes=30)
def project_covariance(
    covariances: Tensor, camera: Tensor, rotation: Tensor, focal: float
) -> Tensor:
    """The covariance of each Gaussian's picture, in square pixels.

    The camera's coordinates (X, Y, Z), Z negative in front of it, are seen at

        row = H / 2 + focal Y / Z,   column = W / 2 - focal X / Z

    which is not linear, so that the picture of a Gaussian is no Gaussian. It nearly is one with the
    covariance

        J R^T Sigma R J^T,   J = d(row, column) / d(X, Y, Z), taken at the mean

    with the rotation R from the camera's to the world's coordinates.

    Args:
        covariances: Sigma (N, 3, 3), in the world's coordinates.
        camera: the means (N, 3), in the camera's coordinates.
        rotation: R (3, 3), the upper left of the pose.
        focal: in pixels.
    Returns:
        (N, 2, 2), rows before columns.
    Source: Zwicker et al. 2001, eq. 31; Kerbl et al. 2023, eq. 5.
    """
    x, y, z = camera.unbind(dim=1)
    none = torch.zeros_like(z)
    entries = (none, focal / z, -focal * y / z**2, -focal / z, none, focal * x / z**2)
    j = torch.stack(entries, dim=1).view(-1, 2, 3) @ rotation.T
    return j @ covariances @ j.transpose(1, 2)


class Gaussians(nn.Module):
    """N Gaussians with opacities and view-dependent colours."""

    def __init__(self, places: Tensor, scale: float, degree: int = 1) -> None:
        """
        Args:
            places: their means at first, (N, 3).
            scale: their deviation at first, the same along all axes.
            degree: highest degree of the colours' harmonics, 0 to 2.
        """
        super().__init__()
        count = len(places)
        self.means = nn.Parameter(places.clone())
        self.log_scales = nn.Parameter(torch.full_like(places, scale).log())
        self.quaternions = nn.Parameter(places.new_tensor([[1.0, 0, 0, 0]]).repeat(count, 1))
        self.raw_opacities = nn.Parameter(places.new_full((count,), -1.0))
        self.coefficients = nn.Parameter(places.new_zeros(count, 3, (degree + 1) ** 2))

    def groups(self, lr: float) -> list[dict[str, object]]:
        """Parameters for an optimiser. Numbers of different units move at different speeds; the
        ratios are about those of Kerbl et al. 2023, for a shorter training."""
        speeds = {"means": 0.1, "log_scales": 1, "quaternions": 0.5, "raw_opacities": 2.5}
        return [
            {"params": [p], "lr": lr * speeds.get(name, 1)} for name, p in self.named_parameters()
        ]

    def covariances(self) -> Tensor:
        """(N, 3, 3)."""
        return covariance(self.log_scales.exp(), self.quaternions)

    def colours(self, eye: Tensor) -> Tensor:
        """(N, 3) in [0, 1], seen from a place (3,)."""
        shading = spherical_harmonics(F.normalize(self.means.detach() - eye, dim=1))
        shading = shading[:, None, : self.coefficients.shape[2]]
        return torch.sigmoid((self.coefficients * shading).sum(dim=2) / 0.28209479)

    @torch.no_grad()
    def relocate(self, optimizer: torch.optim.Optimizer, faint: float = 0.02) -> int:
        """Move Gaussians that are nearly transparent to opaque ones, which are split in two.

        Both get the opacity at which two of them hide as much as the one did, and smaller
        deviations; the optimiser forgets both. Returns how many moved. Source: Kheradmand et al.
        2024 (3DGS as MCMC), section 4.2, with a fixed share in place of its eq. 9 for the scales.
        """
        opacity = self.raw_opacities.sigmoid()
        dead = (opacity < faint).nonzero()[:, 0]
        if len(dead) in (0, len(opacity)):
            return 0
        weights = opacity.masked_fill(opacity < faint, 0)
        source = torch.multinomial(weights, len(dead), replacement=True)
        self.raw_opacities[source] = torch.logit(1 - (1 - opacity[source]).sqrt(), eps=1e-6)
        self.log_scales[source] = self.log_scales[source] - 0.2
        for parameter in self.parameters():
            parameter[dead] = parameter[source]
            for moment in ("exp_avg", "exp_avg_sq"):
                if parameter in optimizer.state:
                    optimizer.state[parameter][moment][torch.cat((dead, source))] = 0
        self.means[dead] += torch.randn_like(self.means[dead]) * self.log_scales[dead].exp()
        return len(dead)


@torch.no_grad()
def carve(points: Tensor, masks: Tensor, poses: Tensor, focal: float) -> Tensor:
    """Which points (P, 3) lie in the visual hull, bool (P,): those that no picture shows to be
    empty. `masks` (V, H, W) say which pixels show something."""
    kept = torch.ones(len(points), dtype=torch.bool, device=points.device)
    height, width = masks.shape[1:]
    for mask, pose in zip(masks, poses, strict=True):
        at, depth = project(points, pose, focal, height, width)
        row, column = at.floor().long().unbind(dim=1)
        seen = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (depth > 0)
        shown = mask[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        kept &= shown | ~seen
    return kept
