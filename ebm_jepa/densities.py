"""Densities in the plane that are known exactly, and normalisers by quadrature.

An energy gives the density only up to a constant, p(x) = exp(-E(x)) / Z. In two dimensions

    Z = integral of exp(-E(x)) dx

can be computed on a grid, so that a learned energy is compared with the true density as a number,
in nats. Each density here can be sampled and has a log-density in closed form.

Letters: N points, P grid points along a side.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from labkit import exercise

SQUARE = 4.0
"""All densities are practically 0 outside [-SQUARE, SQUARE] x [-SQUARE, SQUARE]."""
RADIUS, COMPONENTS, DEVIATION = 2.0, 8, 0.3
"""The ring: distance of each Gaussian from the origin, how many, and their deviation."""
MOON_NOISE, MOON_POINTS = 0.2, 200
"""The moons: deviation of the noise around the arcs, and points of each arc's quadrature."""
ARMS, TURN = 5, 1.2
"""The pinwheel: its arms, and how far they turn, in radians per unit of the radius."""


class Ring:
    """Eight Gaussians of deviation 0.3 on a circle of radius 2, in equal shares."""

    def __init__(self) -> None:
        angle = 2 * math.pi * torch.arange(COMPONENTS) / COMPONENTS
        self.means = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)  # (8, 2)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent points (n, 2)."""
        which = torch.randint(COMPONENTS, (n,), generator=generator)
        return self.means[which] + DEVIATION * torch.randn(n, 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density of points (N, 2): (N,)."""
        return mixture(x, self.means.to(x), DEVIATION)


class Moons:
    """Two interleaved half circles of radius 1.5 with Gaussian noise around them.

    The density is a mixture of Gaussians along the arcs; the integral over the angle is a sum over
    points much closer to each other than the noise is wide.
    """

    def __init__(self) -> None:
        angle = math.pi * (torch.arange(MOON_POINTS) + 0.5) / MOON_POINTS
        self.means = self.arc(
            torch.cat([angle, angle]), torch.arange(2 * MOON_POINTS) // MOON_POINTS
        )

    @staticmethod
    def arc(angle: Tensor, which: Tensor) -> Tensor:
        """Points (N, 2) at those angles (N,) of moon 0 or 1 (N,)."""
        side = 1 - 2.0 * which  # 1 or -1
        x = 1.5 * angle.cos() * side + 0.75 * (-side)
        y = 1.5 * angle.sin() * side - 0.375 * side
        return torch.stack([x, y], dim=1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent points (n, 2)."""
        angle = math.pi * torch.rand(n, generator=generator)
        which = torch.randint(2, (n,), generator=generator)
        return self.arc(angle, which) + MOON_NOISE * torch.randn(n, 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of points (N, 2): (N,)."""
        return mixture(x, self.means.to(x), MOON_NOISE)


class Checkerboard:
    """Uniform on the eight dark squares of a board of 4 x 4 with side 1.5."""

    side = 1.5

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent points (n, 2)."""
        cell = torch.randint(8, (n,), generator=generator)
        row = cell // 2
        column = 2 * (cell % 2) + row % 2  # rows alternate
        corner = torch.stack([column, row], dim=1) - 2.0
        return self.side * (corner + torch.rand(n, 2, generator=generator))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density of points (N, 2): (N,), -inf on the light squares."""
        cell = (x / self.side).floor()  # -2..1 on the board
        dark = (cell.sum(dim=1) % 2 == 0) & (cell >= -2).all(dim=1) & (cell <= 1).all(dim=1)
        inside = -math.log(8 * self.side**2)
        return torch.where(dark, inside, -torch.inf).to(x.dtype)


class Pinwheel:
    """Five long Gaussians around the origin, turned the further the farther out.

    A rotation by an angle that depends on the radius alone keeps areas, so the density is that of
    the unturned mixture at the point turned back.
    """

    def __init__(self) -> None:
        angle = 2 * math.pi * torch.arange(ARMS) / ARMS
        self.axes = torch.stack([angle.cos(), angle.sin()], dim=1)  # (5, 2), outwards
        self.sides = torch.stack([-angle.sin(), angle.cos()], dim=1)
        self.along, self.across, self.centre = 0.5, 0.15, 1.7

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent points (n, 2)."""
        which = torch.randint(ARMS, (n,), generator=generator)
        z = torch.randn(n, 2, generator=generator) * torch.tensor([self.along, self.across])
        x = (self.centre + z[:, :1]) * self.axes[which] + z[:, 1:] * self.sides[which]
        return turned(x, TURN)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density of points (N, 2): (N,)."""
        straight = turned(x, -TURN)
        along = (straight @ self.axes.to(x).T - self.centre) / self.along  # (N, 5)
        across = straight @ self.sides.to(x).T / self.across
        each = -0.5 * (along.square() + across.square())
        return each.logsumexp(dim=1) - math.log(ARMS * 2 * math.pi * self.along * self.across)


Density = Ring | Moons | Checkerboard | Pinwheel
BY_NAME: dict[str, type[Density]] = {
    "ring": Ring, "moons": Moons, "checkerboard": Checkerboard, "pinwheel": Pinwheel,
}  # fmt: skip


def turned(x: Tensor, rate: float) -> Tensor:
    """Points (N, 2), each rotated by `rate` times its distance from the origin."""
    angle = rate * x.norm(dim=1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], dim=1)


def mixture(x: Tensor, means: Tensor, deviation: float) -> Tensor:
    """Log-density at points (N, 2) of equally weighted Gaussians around means (M, 2): (N,)."""
    square = (x[:, None] - means).square().sum(dim=2)  # (N, M)
    each = -0.5 * square / deviation**2
    return each.logsumexp(dim=1) - math.log(len(means) * 2 * math.pi * deviation**2)


def grid(points: int, device: torch.device | str = "cpu") -> Tensor:
    """All points of a square grid over [-SQUARE, SQUARE] x [-SQUARE, SQUARE]: (P P, 2)."""
    line = torch.linspace(-SQUARE, SQUARE, points, device=device)
    return torch.cartesian_prod(line, line)


@exercise(minutes=20)
def log_normaliser(energy: Tensor, spacing: float) -> Tensor:
    """log Z of an energy that is given on a grid, by the trapezoid rule in two dimensions.

    Z is the sum over all grid points of weight * exp(-energy) * spacing^2. The weight is 1 inside,
    1/2 on the four edges and 1/4 at the four corners: half for each direction in which the point
    is the first or the last. The sum is a log-sum-exp: energies of 1,000 or of -1,000 neither
    underflow nor overflow. Nothing is changed in place.

    Args:
        energy: float (P, Q), P and Q at least 2, not necessarily equal; +inf where the density
            is 0.
        spacing: h > 0, the distance of neighbouring grid points, equal in both directions.
    Returns:
        0-d tensor of the same dtype, on the same device, differentiable in the energy.
    """
    log_weight = torch.zeros_like(energy)
    log_weight[[0, -1], :] -= math.log(2)
    log_weight[:, [0, -1]] -= math.log(2)
    return (log_weight - energy).flatten().logsumexp(dim=0) + 2 * math.log(spacing)


def log_z(
    energy: Callable[[Tensor], Tensor], points: int, device: torch.device | str = "cpu"
) -> Tensor:
    """log Z over the square of an energy that maps points (N, 2) to (N,); 0-d."""
    values = energy(grid(points, device)).reshape(points, points)
    return log_normaliser(values, 2 * SQUARE / (points - 1))
