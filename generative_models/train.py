"""Train a VAE, a GAN or a VQ-VAE and measure what it draws.

python -m generative_models.train +size=tiny                           VAE on MNIST
python -m generative_models.train +size=tiny +experiment=gan           DCGAN
python -m generative_models.train +size=tiny +experiment=vqvae         VQ-VAE
python -m generative_models.train +size=tiny +experiment=autoencoder   for week 10's diffusion
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from generative_models.settings import AUGMENTATIONS, GANSettings, VAESettings, VQSettings
from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, PositiveInt, Share

if TYPE_CHECKING:
    from generative_models.pipeline import Learner


@dataclass
class Config(LabConfig):
    """Week 9: VAE, GAN and VQ-VAE on small pictures."""

    data: str = "cifar10"
    """Training set: an image set of the registry."""
    method: Literal["vae", "gan", "vqvae"] = "vae"
    """What is trained; the settings of the other methods have no effect."""
    width: PositiveInt = 128
    """Channels of the level nearest to the picture; they double from level to level."""
    levels: PositiveInt = 3
    """Halvings from the picture to its smallest level."""
    steps: PositiveInt = 100_000
    """Steps of the loop."""
    batch_size: Annotated[int, Bounds(least=2)] = 128
    """Pictures a step; two or more, for batch normalisation."""
    validation: Share = 0.0
    """Share of the training pictures held out. With more than 0 these are measured, and the test
    pictures are not looked at: for choosing settings."""
    samples: Annotated[int, Bounds(least=2)] = 10_000
    """Pictures drawn for the distance, two or more (at most as many as there are to compare with).
    """
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""
    vae: VAESettings = field(default_factory=VAESettings)
    """Settings of method=vae."""
    gan: GANSettings = field(default_factory=GANSettings)
    """Settings of method=gan."""
    vqvae: VQSettings = field(default_factory=VQSettings)
    """Settings of method=vqvae."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.gan.augment) - set(AUGMENTATIONS):
            raise UsageError(
                f"gan.augment takes color, translation and cutout, not {', '.join(sorted(unknown))}"
                "; try gan.augment=[translation], or [] for none"
            )
        if self.method == "gan" and self.batch_size < 2 * self.gan.discriminator_steps:
            raise UsageError(
                f"batch_size={self.batch_size} is too small for "
                f"gan.discriminator_steps={self.gan.discriminator_steps}, each on a part of two "
                f"pictures or more; try batch_size={2 * self.gan.discriminator_steps}"
            )


def learner_of(cfg: Config, run: Run, image: tuple[int, int, int]) -> Learner:
    """The networks of cfg.method for pictures of that shape (C, H, W), and what trains them."""
    from generative_models.gan import GAN
    from generative_models.model import Decoder, Discriminator
    from generative_models.vae import VAE, VAELearner
    from generative_models.vqvae import VQVAE, VQLearner

    size = (image, cfg.width, cfg.levels)
    if cfg.method == "gan":
        generator = Decoder(*size, cfg.gan.latent, spatial=False).to(run.device)
        discriminator = Discriminator(*size, cfg.gan.spectral_norm).to(run.device)
        return GAN(generator, discriminator, cfg.gan, run.autocast)
    if cfg.method == "vqvae":
        vqvae = VQVAE(*size, cfg.vqvae.codes, cfg.vqvae.dimension).to(run.device)
        return VQLearner(vqvae, cfg.vqvae, run.autocast)
    vae = VAE(*size, cfg.vae.latent, cfg.vae.spatial, cfg.vae.likelihood).to(run.device)
    return VAELearner(vae, cfg.vae, run.autocast)


@lab("generative_models", Config)
def train(cfg: Config, run: Run) -> None:
    """Train, then draw and measure."""
    import torch

    from generative_models import evaluate, figures
    from generative_models.pipeline import Autoencoder, Generator
    from labkit.data import ImageData, batch_indices, check_batch_size, check_share, epoch_order
    from pytorch_mastery import one_cycle

    data = run.data(cfg.data, ImageData)
    x, measured = data.train.tensors(run.device)[0], data.test.tensors(run.device)[0]
    if cfg.validation:
        check_share(len(x), cfg.validation)
        order = torch.from_numpy(epoch_order(len(x), 0, seed=0).copy()).to(run.device)
        measured, x = x[order].tensor_split([round(cfg.validation * len(x))])
    check_batch_size(len(x), cfg.batch_size)
    image = (x.shape[1], x.shape[2], x.shape[3])
    if any(side % 2**cfg.levels for side in image[1:]):
        evenly = max(k for k in range(cfg.levels) if not any(s % 2**k for s in image[1:]))
        raise UsageError(
            f"{data.name} pictures are {image[1]} x {image[2]}, which cannot be halved "
            f"{cfg.levels} times; try levels={evenly}"
        )
    learner = learner_of(cfg, run, image)
    generator = Generator(learner.generator, run.autocast)
    frames: list[object] = []  # of the GIF: the same latents, drawn again and again
    fixed = generator.network.prior(5 * figures.COLUMNS, torch.Generator().manual_seed(cfg.seed))
    run.track(**learner.tracked, frames=frames)

    moments = figures.moments(cfg.steps)
    for step in run.steps(cfg.steps):
        rate = one_cycle(step, cfg.steps, 1.0, rise=0.05)  # as a share of the peak
        index = torch.from_numpy(batch_indices(len(x), cfg.batch_size, step, cfg.seed))
        terms = learner.update(x[index.to(run.device)], rate)
        if step in moments:
            frames.append(figures.sheet(generator.pictures(fixed)))
            run.image("latest", frames[-1])
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            named = {f"train/{name}": value for name, value in terms.items()}
            run.log({"train/lr": rate * learner.lr, **named}, step)
    run.save()

    metrics: dict[str, float] = {}
    if cfg.method == "vae":
        metrics |= evaluate.vae_metrics(generator.network, measured, cfg.vae.importance_samples)
    if cfg.method == "vqvae":
        generator.network.count(evaluate.all_indices(generator.network, x))
        metrics |= evaluate.vq_metrics(generator.network, measured)
    if cfg.method != "gan":
        autoencoder = Autoencoder(generator.network, run.autocast)
        metrics["pixel_error"] = evaluate.pixel_error(autoencoder, measured)
    generator.save(run.dir / "model")
    run.publish(generator.save)
    run.plot("training", *(f"train/{name}" for name in learner.terms))
    run.gif("learning", frames, fps=8)
    figures.draw_all(run, generator, measured)
    run.result(evaluate.picture_metrics(run, generator, data, measured, cfg.samples) | metrics)


if __name__ == "__main__":
    train()
