"""The learner that each method trains, from its settings and the data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from ebm_jepa import densities, jem, masks, sgld
from ebm_jepa.ebm import EBM, Autocast
from ebm_jepa.energy import LogitEnergy, PlaneEnergy, picture_network
from ebm_jepa.jepa import JEPA
from ebm_jepa.settings import DensitySettings, EBMSettings, JEMSettings, JEPASettings
from ebm_jepa.views import Views
from ebm_jepa.vit import Encoder
from labkit import UsageError
from labkit.data import ImageData

Start = Callable[[int], Tensor]


def plane(
    settings: DensitySettings, seed: int, device: torch.device
) -> tuple[EBM, densities.Density]:
    """An energy in the plane, and the density that it shall learn."""
    density = densities.BY_NAME[settings.target]()

    def batch(step: int, n: int) -> Tensor:
        draws = torch.Generator().manual_seed(1_000_003 * seed + step)
        return density.sample(n, draws).to(device)

    def start(n: int) -> Tensor:
        if settings.start == "data":
            return density.sample(n).to(device)
        return densities.SQUARE * (2 * torch.rand(n, 2, device=device) - 1)

    energy = PlaneEnergy(settings.width, settings.layers).to(device)
    # In fp32, since a tenth of a nat is what is measured here.
    learner = EBM(energy, settings, batch, start, densities.SQUARE, nullcontext, "density")
    return learner, density


def fingerprint(density: densities.Density) -> str:
    """SHA-256 of a thousand points of a density, which tells one definition from another."""
    points = density.sample(1000, torch.Generator().manual_seed(0))
    return hashlib.sha256(points.numpy().tobytes()).hexdigest()


def starts(kind: str, x: Tensor, y: Tensor, classes: int) -> Start:
    """Where new chains of pictures begin: n -> (n, C, H, W) in [-1, 1].

    Args:
        kind: uniform, gaussian or data (see `settings.SamplerSettings.start`).
        x: training pictures uint8 (N, C, H, W), with classes y int64 (N,).
    """
    if kind == "gaussian":
        return sgld.gaussian_start(jem.to_signed(x), y, classes)

    def start(n: int) -> Tensor:
        if kind == "data":
            return jem.to_signed(x[torch.randint(len(x), (n,)).to(x.device)])
        return 2 * torch.rand(n, *x.shape[1:], device=x.device) - 1

    return start


def classifier(
    settings: JEMSettings, data: ImageData, x: Tensor, y: Tensor, seed: int, autocast: Autocast
) -> jem.JEM:
    """JEM of pictures x uint8 (N, C, H, W) with classes y int64 (N,)."""
    s, classes = settings, len(data.classes)
    network = picture_network(s.network, shape_of(x), s.width, classes, s.depth).to(x.device)
    pictures = jem.Pictures(x, y, s.shift, s.input_noise, seed)
    return jem.JEM(network, s, pictures, starts(s.start, x, y, classes), autocast)


def unlabelled(
    settings: EBMSettings, data: ImageData, x: Tensor, y: Tensor, seed: int, autocast: Autocast
) -> EBM:
    """An energy of pictures x uint8 (N, C, H, W); of y (N,) only starting points are made."""
    s = settings
    network = picture_network(s.network, shape_of(x), s.width, 1, s.depth).to(x.device)
    pictures = jem.Pictures(x, y, 0, s.input_noise, seed)
    start = starts(s.start, x, y, len(data.classes))
    return EBM(LogitEnergy(network), s, pictures, start, jem.BOUND, autocast)


def shape_of(x: Tensor) -> tuple[int, int, int]:
    """Channels, height and width of pictures (N, C, H, W)."""
    return x.shape[1], x.shape[2], x.shape[3]


def joint_embedding(
    settings: JEPASettings, data: ImageData, x: Tensor, seed: int, autocast: Autocast
) -> JEPA | Views:
    """A JEPA of pictures x uint8 (N, C, H, W). Raises UsageError for patches that do not fit."""
    s, image = settings, shape_of(x)
    if s.task == "views":
        return Views(x, s, seed, autocast)
    if any(side % s.patch for side in image[1:]):
        fitting = next(p for p in (4, 2, 1) if not any(side % p for side in image[1:]))
        raise UsageError(
            f"{data.name} pictures are {image[1]} x {image[2]}, which patches of {s.patch} do not "
            f"fill; try jepa.patch={fitting}"
        )
    rows, columns = image[1] // s.patch, image[2] // s.patch
    try:  # a batch as large as any, so that a layout that rarely fits is refused at once
        masks.draw(
            256, rows, columns, s.targets, s.target_scale, s.context_scale,
            torch.Generator().manual_seed(0),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"{error}; try jepa.targets=2 or jepa.target_scale=0.15") from error
    encoder = Encoder(image, s.patch, s.width, s.depth, s.heads, data.mean, data.std)
    return JEPA(encoder.to(x.device), x, s, seed, autocast)
