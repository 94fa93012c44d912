"""Pictures of what a model does: reconstructions, interpolations, traversals, and its learning."""

import numpy as np
import torch
from torch import Tensor

from generative_models.pipeline import Autoencoder, Generator
from generative_models.vae import VAE, gaussian_kl
from labkit import Run
from labkit.learning.modes import evaluating

COLUMNS = 10
REACH = 3.0
"""Standard deviations that a traversal goes to either side."""


def moments(steps: int, count: int = 32) -> set[int]:
    """Steps after which a frame is kept: early ones close together, the last step among them."""
    spaced = np.geomspace(1, steps, count).round().astype(int) - 1
    return {int(step) for step in spaced}


def sheet(pictures: Tensor, columns: int = COLUMNS) -> np.ndarray:
    """Pictures uint8 (N, C, H, W), N a multiple of `columns`, side by side: uint8 (h, w, 3)."""
    N, C, H, W = pictures.shape
    rows = pictures.cpu().view(N // columns, columns, C, H, W).permute(0, 3, 1, 4, 2)
    array = rows.reshape(N // columns * H, columns * W, C).expand(-1, -1, 3).numpy()
    scale = max(1, 64 // H)
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


def spherical(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Latents on the great circle from a to b, both (c, h, w): (steps, c, h, w), ends included.

    Nearly all vectors of a normal distribution in many dimensions have the same length; the middle
    of a straight line is shorter than any vector that the network was trained on. Directions turn
    evenly, lengths change evenly (White 2016).
    """
    share = torch.linspace(0, 1, steps, device=a.device).view(-1, 1, 1, 1)
    lengths = a.norm(), b.norm()
    u, v = a / lengths[0], b / lengths[1]
    angle = (u * v).sum().clamp(-1, 1).acos()
    if angle < 1e-4:
        return a + share * (b - a)
    turned = ((1 - share) * angle).sin() * u + (share * angle).sin() * v
    return turned / angle.sin() * ((1 - share) * lengths[0] + share * lengths[1])


def draw_all(run: Run, generator: Generator, test: Tensor) -> None:
    """Every figure that fits the method, from test pictures uint8 (N, C, H, W)."""
    run.grid("samples", generator.draw(10 * COLUMNS, seed=run.seed), COLUMNS)
    if generator.method == "gan":
        ends = generator.network.prior(12, torch.Generator().manual_seed(run.seed))
        _interpolations(run, generator, ends)
        return
    autoencoder = Autoencoder(generator.network, generator.autocast)
    first = test[: 5 * COLUMNS]
    rows = first.split(COLUMNS)
    again = autoencoder.decode(autoencoder.encode(first)).split(COLUMNS)
    full = [row for row in zip(rows, again, strict=True) if len(row[0]) == COLUMNS]
    if full:
        run.grid("reconstructions", torch.cat([p for row in full for p in row]), COLUMNS)
    _interpolations(run, generator, autoencoder.encode(test[:12]))
    if isinstance(generator.network, VAE) and not generator.network.shape["spatial"]:
        _traversals(run, generator, test)


def _interpolations(run: Run, generator: Generator, ends: Tensor) -> None:
    """A row for each pair of latents: from the first to the second."""
    pairs = zip(ends[::2], ends[1::2], strict=False)
    z = torch.cat([spherical(a, b, COLUMNS) for a, b in pairs])
    run.grid("interpolations", generator.pictures(z), COLUMNS)


def _traversals(run: Run, generator: Generator, test: Tensor, rows: int = 8) -> None:
    """A row for each of the latents with the largest KL: one picture's latents, with this one
    changed from -3 to 3.
    """
    model: VAE = generator.network
    with evaluating(model):
        mean, log_variance = model.encode(test[:500].float() / 255)
    kl = gaussian_kl(mean, log_variance).mean(dim=0).flatten()
    z = mean[:1].flatten(1).repeat(COLUMNS, 1)
    values = torch.linspace(-REACH, REACH, COLUMNS, device=z.device)
    changed = []
    for latent in kl.argsort(descending=True)[:rows].tolist():
        row = z.clone()
        row[:, latent] = values
        changed.append(row)
    pictures = generator.pictures(torch.cat(changed).view(-1, *model.latent))
    run.grid("traversals", pictures, COLUMNS)
