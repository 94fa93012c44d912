"""The two time-scale update rule (Heusel et al. 2017, section 2 and figure 2) on week 9's GAN.

The same GAN is trained from the same start on the same batches: once with one learning rate for
both players, and once with a faster discriminator. Their distances are measured along the way.

python -m evaluation.ttur.train +size=tiny
"""

from dataclasses import dataclass, field
from typing import Annotated

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 12: one learning rate against two, on the GAN of week 9."""

    data: str = "cifar10"
    """Training set; distances are measured to its test images."""
    lr: PositiveFloat = 2e-4
    """Learning rate of the generator, and in the equal case of the discriminator too."""
    ratios: list[PositiveFloat] = field(default_factory=lambda: [1.0, 4.0])
    """Learning rate of the discriminator over that of the generator: a GAN for each."""
    width: PositiveInt = 64
    """Channels of both networks' level nearest to the picture."""
    levels: PositiveInt = 3
    """Halvings from the picture to the smallest level."""
    latent: PositiveInt = 64
    """Numbers in the noise vector."""
    steps: PositiveInt = 50_000
    """Steps of each GAN."""
    batch_size: Annotated[int, Bounds(least=2)] = 64
    """Pictures a step."""
    looks: PositiveInt = 20
    """Measurements along the way, at equal intervals."""
    samples: Annotated[int, Bounds(least=8)] = 5000
    """Pictures of a measurement (at most as many as there are test pictures)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.ratios)) < 2:
            raise UsageError("ratios= needs two different ones or more; try ratios=[1,4]")
        if self.looks > self.steps:
            raise UsageError(f"looks={self.looks} is more than steps={self.steps}")


@lab("evaluation.ttur", Config)
def train(cfg: Config, run: Run) -> None:
    """Train one GAN for each ratio, in turn step by step, and compare their curves."""
    import torch

    from evaluation.extractors import of_data
    from evaluation.frechet import distance_from, gaussian
    from generative_models import GAN, Decoder, Discriminator, GANSettings, Generator
    from labkit.data import ImageData, batch_indices, check_batch_size

    data = run.data(cfg.data, ImageData)
    check_batch_size(len(data.train), cfg.batch_size)
    x, _ = data.train.tensors(run.device)
    image = (x.shape[1], x.shape[2], x.shape[3])
    if any(side % 2**cfg.levels for side in image[1:]):
        raise UsageError(f"{data.name} cannot be halved {cfg.levels} times; try levels=2")
    count = min(cfg.samples, len(data.test))
    extractor, _ = of_data(run, data)
    reference = gaussian(extractor(data.test.tensors()[0][:count]).features)

    gans: dict[str, GAN] = {}
    for ratio in cfg.ratios:
        torch.manual_seed(cfg.seed)  # the same start
        settings = GANSettings(
            latent=cfg.latent, lr_generator=cfg.lr, lr_discriminator=cfg.lr * ratio, augment=[]
        )
        generator = Decoder(image, cfg.width, cfg.levels, cfg.latent, spatial=False)
        discriminator = Discriminator(image, cfg.width, cfg.levels, settings.spectral_norm)
        pair = generator.to(run.device), discriminator.to(run.device)
        gans[f"{ratio:g}"] = GAN(*pair, settings, run.autocast)
    things = {f"{key}_{name}": v for name, gan in gans.items() for key, v in gan.tracked.items()}
    curves: dict[str, list[float]] = {name: [] for name in gans}
    run.track(**things, curves=curves)

    every = cfg.steps // cfg.looks
    for step in run.steps(cfg.steps):
        index = torch.from_numpy(batch_indices(len(x), cfg.batch_size, step, cfg.seed))
        batch = x[index.to(run.device)]
        for name, gan in gans.items():
            torch.manual_seed(cfg.seed + step)  # the same noise for every GAN
            gan.update(batch, 1.0)
            if (step + 1) % every == 0:
                drawn = Generator(gan.generator).draw(count, seed=run.seed)
                curves[name].append(distance_from(extractor(drawn).features, reference))
                run.log({f"fid/ratio_{name}": curves[name][-1]}, step)
    run.save()
    run.plot("ttur", *(f"fid/ratio_{name}" for name in gans), logy=True)
    first, *others = (f"{ratio:g}" for ratio in cfg.ratios)
    best = min(curves[name][-1] for name in others)
    finals = {f"fid_ratio_{name}": values[-1] for name, values in curves.items()}
    run.result({"ttur_gain": curves[first][-1] / best, **finals})


if __name__ == "__main__":
    train()
