"""Train an encoder without labels, and measure the quality of its representation.

python -m representation_learning.train +size=tiny                          SimCLR
python -m representation_learning.train +size=tiny method=autoencoder       or supervised
python -m representation_learning.train +size=tiny method=random            or pixels: no training

The evaluation is the same for every method: a linear probe and nearest neighbours on the frozen
representation, fitted to training images, tested on test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from labkit.data import ImageData
    from representation_learning.objectives import Encoder, Objective

UNTRAINED = ("random", "pixels")


@dataclass
class Config(LabConfig):
    """Week 4: SimCLR and an autoencoder on CIFAR-10."""

    data: str = "cifar10"
    """Image set of the registry; grey images are repeated over three channels."""
    method: Literal["simclr", "autoencoder", "supervised", "random", "pixels"] = "simclr"
    """How the representation is learned; random: untrained encoder, pixels: no encoder."""
    network: Literal["small", "resnet18"] = "resnet18"
    """Encoder."""
    width: PositiveInt = 64
    """Channels of the small encoder's first trained layer; its representation has 4 times more."""
    head_hidden: PositiveInt = 512
    """Hidden units of the projection head."""
    head_dim: PositiveInt = 128
    """Dimensions of the projection, on which the contrastive loss is computed."""
    temperature: PositiveFloat = 0.5
    """Temperature of NT-Xent: lower weighs the nearest negatives more."""
    probe: Literal["representation", "projection"] = "representation"
    """Input of the probe and the neighbours: before the projection head, or after it."""
    crop: Fraction = 0.08
    """Smallest share of an image that a crop keeps."""
    colour: Fraction = 0.5
    """Strength of the colour jitter; 1 is the paper's for ImageNet, 0.5 for CIFAR-10."""
    blur: Fraction = 0.0
    """Probability of blur; the paper leaves it out for CIFAR-10."""
    steps: PositiveInt = 20_000
    """Optimiser steps."""
    batch_size: Annotated[int, Bounds(least=2)] = 512
    """SimCLR: images per step, each in two views, 2 or more: the loss needs other images. The other
    methods take twice as many, in one view."""
    optimizer: Literal["adamw", "lars"] = "adamw"
    """Update rule; lars needs a learning rate near 1."""
    lr: PositiveFloat = 2e-3
    """Peak learning rate; it rises and then falls along cosines."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: NonNegativeFloat = 1e-4
    """Decoupled weight decay of AdamW, or LARS's own."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probe == "projection" and self.method != "simclr":
            raise UsageError(f"probe=projection needs method=simclr; method={self.method} has none")


@lab("representation_learning", Config)
def train(cfg: Config, run: Run) -> None:
    """Train the encoder, freeze it, measure it."""
    import torch

    from labkit.data import ImageData, batch_indices
    from pytorch_mastery import one_cycle
    from representation_learning.model import make_encoder, square

    data = run.data(cfg.data, ImageData)
    x, y = data.train.tensors(run.device)
    x = square(x)
    encoder = make_encoder(cfg.network, cfg.width, x).to(run.device)
    model = objective(cfg, encoder, len(data.classes)).to(run.device)
    optimizer = make_optimizer(cfg, [p for p in model.parameters() if p.requires_grad])
    recent = {key: torch.zeros((), device=run.device) for key in ("loss", "partners_found")}
    run.track(model=model, optimizer=optimizer, recent=recent)

    images = cfg.batch_size if cfg.method == "simclr" else 2 * cfg.batch_size  # equal work
    if images > len(x):
        raise UsageError(
            f"batch_size={cfg.batch_size} needs {images:,} different images per step, "
            f"{data.name} has {len(x):,}"
        )
    for step in run.steps(0 if cfg.method in UNTRAINED else cfg.steps):
        lr = one_cycle(step, cfg.steps, cfg.lr, rise=cfg.warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        index = torch.tensor(batch_indices(len(x), images, step, cfg.seed)).to(run.device)
        loss, metrics = model(x[index], y[index], run.autocast)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        metrics |= {"loss": loss.detach(), "lr": lr}
        for key, mean in recent.items():  # of about the last 50 steps
            mean.lerp_(metrics.get(key, mean), max(1 / (step + 1), 0.02))
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            run.log({f"train/{key}": value for key, value in metrics.items()}, step)
    run.save()

    measure(cfg, run, data, model, recent)


def objective(cfg: Config, encoder: Encoder, classes: int) -> Objective:
    """The module that is trained, by the name of its method."""
    from representation_learning.augment import Augmentation
    from representation_learning.objectives import Autoencoder, SimCLR, Supervised

    augment = Augmentation(scale=(cfg.crop, 1.0), colour=cfg.colour, blur=cfg.blur)
    if cfg.method == "autoencoder":
        return Autoencoder(encoder)
    if cfg.method == "supervised":
        return Supervised(encoder, augment, classes)
    head = (cfg.head_hidden, cfg.head_dim)
    return SimCLR(encoder, augment, cfg.temperature, head)


def make_optimizer(cfg: Config, parameters: list[nn.Parameter]) -> Optimizer:
    """AdamW, or LARS."""
    import torch

    from representation_learning.lars import LARS

    if cfg.optimizer == "lars":
        return LARS(parameters, cfg.lr, weight_decay=cfg.weight_decay)
    return torch.optim.AdamW(
        parameters, cfg.lr, betas=(0.9, 0.98), weight_decay=cfg.weight_decay, fused=True
    )


def measure(
    cfg: Config, run: Run, data: ImageData, model: Objective, recent: dict[str, Tensor]
) -> None:
    """Probe, neighbours and pictures of the frozen representation; the test set is used here."""
    from representation_learning import figures
    from representation_learning.evaluate import knn_accuracy, linear_probe, represent
    from representation_learning.model import square
    from representation_learning.objectives import SimCLR

    (x, y), (x_test, y_test) = data.train.tensors(run.device), data.test.tensors(run.device)
    x, x_test = square(x), square(x_test)

    def look(images: Tensor) -> Tensor:
        if cfg.method == "pixels":
            return images.flatten(1)
        h = model.encoder(images)
        return model.head(h) if isinstance(model, SimCLR) and cfg.probe == "projection" else h

    model.eval()
    h, h_test = represent(look, x), represent(look, x_test)
    classes = len(data.classes)
    accuracy, decay = linear_probe(h, y, h_test, y_test, classes)
    metrics = {
        "probe_accuracy": accuracy,
        "knn_accuracy": knn_accuracy(h, y, h_test, y_test, classes),
        "probe_decay": decay,
    }
    if cfg.method not in UNTRAINED:
        metrics["train_loss"] = float(recent["loss"])
    if cfg.method == "simclr":
        metrics["partners_found"] = float(recent["partners_found"])
    run.result(metrics)
    trained = cfg.method not in UNTRAINED
    figures.draw(run, data.classes, model, trained, (x, h, y), (x_test, h_test, y_test))


if __name__ == "__main__":
    train()
