"""The vector-quantised autoencoder (van den Oord, Vinyals & Kavukcuoglu 2017).

The encoder's output at each place is replaced by the nearest of K code vectors, so a picture
becomes a small array of whole numbers. Choosing has no gradient: it is passed straight through.

    L = |x - x'|^2 + |sg[z_e] - e|^2 + commitment |z_e - sg[e]|^2        eq. 3; sg stops gradients

Letters: B batch, K codes, D dimensions of a code, (h, w) places.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative_models.model import Decoder, Encoder, Shape
from generative_models.settings import VQSettings
from generative_models.vae import Autocast
from labkit import exercise


@exercise(minutes=20)
def nearest_codes(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code with the smallest Euclidean distance to each vector (eq. 1).

    Args:
        z: (N, D).
        codebook: (K, D).
    Returns:
        int64 (N,); the lowest index where distances are equal. No array of N x K x D numbers is
        made: |z - e|^2 = |z|^2 - 2 z.e + |e|^2.
    """
    return (codebook.square().sum(dim=1) - 2 * z @ codebook.T).argmin(dim=1)


@exercise(minutes=15)
def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """The value of `quantised` with the gradient of `z` (section 3.2).

    What the decoder's loss says about its input goes to z unchanged, and none of it to `quantised`.

    Args:
        z, quantised: one shape; not changed.
    """
    return z + (quantised - z).detach()


@exercise(minutes=15)
def perplexity(indices: Tensor, codes: int) -> float:
    """How many codes are in use: exp of the entropy, in nats, of how often each was chosen.

    `codes` when all are chosen equally often, 1 when it is always the same one. Codes that were
    never chosen add nothing.

    Args:
        indices: int64 of any shape, 0 <= index < codes, at least one.
    """
    share = torch.bincount(indices.flatten(), minlength=codes).double() / indices.numel()
    return float(torch.special.entr(share).sum().exp())


class VQVAE(nn.Module):
    """Encoder, codebook and decoder; and how often each code is chosen at each place."""

    places: Tensor

    def __init__(self, image: Shape, width: int, levels: int, codes: int, dimension: int) -> None:
        """`image` is (C, H, W). The latents are (dimension, H, W) / 2^levels."""
        super().__init__()
        self.shape = {
            "image": list(image), "width": width, "levels": levels, "codes": codes,
            "dimension": dimension,
        }  # fmt: skip
        self.encoder = Encoder(image, width, levels, dimension, spatial=True)
        self.decoder = Decoder(image, width, levels, dimension, spatial=True)
        self.image, self.latent = image, self.decoder.latent
        # Spread like the first outputs of the encoder: codes far from all of them are never chosen,
        # and what is never chosen is never trained.
        self.codebook = nn.Parameter(0.5 * torch.randn(codes, dimension))
        _, h, w = self.latent
        self.register_buffer("places", torch.full((h * w, codes), 1 / codes))

    def latents(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the encoder's output, float32 (B, D, h, w), not quantised."""
        out: Tensor = self.encoder(x).float()
        return out

    def indices(self, z: Tensor) -> Tensor:
        """The code of each place: (B, D, h, w) -> int64 (B, h, w)."""
        B, D, h, w = z.shape
        rows = z.permute(0, 2, 3, 1).reshape(-1, D)
        return nearest_codes(rows, self.codebook).view(B, h, w)

    def vectors(self, indices: Tensor) -> Tensor:
        """The codes as vectors: (B, h, w) -> (B, D, h, w)."""
        return F.embedding(indices, self.codebook).permute(0, 3, 1, 2)

    def decode(self, z: Tensor) -> Tensor:
        """Pictures in [0, 1], (B, C, H, W), from latents (B, D, h, w), which are quantised."""
        return self.decoder.decode(self.vectors(self.indices(z)))

    def prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n latents (n, D, h, w): each place's code drawn by how often it is chosen there.

        Places are drawn independently: the paper's PixelCNN, which learns how codes go together,
        is left out, and the pictures show it.
        """
        _, h, w = self.latent
        drawn = torch.multinomial(self.places.cpu(), n, replacement=True, generator=generator)
        return self.vectors(drawn.T.reshape(n, h, w).to(self.codebook.device))

    @torch.no_grad()
    def count(self, indices: Tensor) -> None:
        """Take the frequencies of the codes at each place from indices (N, h, w)."""
        chosen = F.one_hot(indices.flatten(1).T, len(self.codebook))  # (h w, N, K)
        self.places.copy_(chosen.float().mean(dim=1))


class VQLearner:
    """Trains a VQ-VAE on batches of pictures."""

    terms = ("loss", "reconstruction", "commitment")

    def __init__(self, network: VQVAE, settings: VQSettings, autocast: Autocast) -> None:
        self.network, self.settings, self.autocast = network, settings, autocast
        self.generator, self.lr = network, settings.lr
        self.optimizer = torch.optim.AdamW(
            network.parameters(), settings.lr, (0.9, 0.99), weight_decay=0.0, fused=True
        )
        self.tracked = {"network": network, "optimizer": self.optimizer}

    def update(self, pictures: Tensor, rate: float) -> dict[str, Tensor]:
        """One step down eq. 3 for pictures, uint8 (B, C, H, W), at `rate` times the peak learning
        rate. Returns its terms: squared errors, of pixels relative to their variance.
        """
        self.optimizer.param_groups[0]["lr"] = rate * self.settings.lr
        x = pictures.float() / 255
        with self.autocast():
            z = self.network.latents(x)
            quantised = self.network.vectors(self.network.indices(z))
            decoded = self.network.decoder.decode(straight_through(z, quantised))
        reconstruction = F.mse_loss(decoded, x) / x.var()
        codebook = F.mse_loss(quantised, z.detach())
        commitment = F.mse_loss(z, quantised.detach())
        loss = reconstruction + codebook + self.settings.commitment * commitment
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, "reconstruction": reconstruction, "commitment": commitment}
