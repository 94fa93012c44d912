"""Train a classifier, plainly or against attacks, and attack it.

python -m robustness.train +size=tiny                          adversarial training by FGSM-RS
python -m robustness.train +size=tiny +experiment=standard     no defence: PGD brings it near 0 %
python -m robustness.train +size=tiny +experiment=pgd          Madry's adversarial training
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 22: attacks on classifiers, and defences."""

    data: str = "mnist"
    """An image set of the registry."""
    validation: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Share of the training images held out: settings are chosen on them."""
    method: Literal["standard", "fgsm_rs", "pgd"] = "pgd"
    """What is trained on: the images, or images attacked by FGSM from a random start, or by PGD."""
    network: Literal["small", "week3"] = "small"
    """small: two strided convolutions. week3: the CNN of week 3."""
    base: PositiveInt = 32
    """Channels of the network's first layer."""
    epsilon: Annotated[float, Bounds(least=0, most=1)] = 0.3
    """Largest change of a pixel (L-inf), as a share of the range from black to white."""
    inner_steps: PositiveInt = 40
    """Steps of PGD in training."""
    inner_size: NonNegativeFloat = 0.01
    """Step of the attack in training; for fgsm_rs somewhat above epsilon."""
    steps: PositiveInt = 40_000
    """Optimiser steps."""
    batch_size: PositiveInt = 128
    """Images a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of Adam."""
    attack_steps: PositiveInt = 20
    """Steps of PGD in the test."""
    restarts: PositiveInt = 3
    """Random starts of PGD in the test; an image counts as right only if right after all."""
    attacked: PositiveInt = 10_000
    """Test images attacked (at most all), a random subset."""
    queries: PositiveInt = 5000
    """Queries of the Square attack for each image."""
    square_images: PositiveInt = 1000
    """Test images under the Square attack, the first of those attacked."""
    look_every: PositiveInt = 500
    """Steps between two measures of PGD on held-out images."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method != "standard" and not self.inner_size:
            raise UsageError(f"inner_size=0 attacks nothing; try inner_size={self.epsilon}")


@lab("robustness", Config)
def train(cfg: Config, run: Run) -> None:
    """Train by `method`, then measure accuracy under each attack."""
    import torch
    import torch.nn.functional as F

    from labkit.data import ImageData, batch_indices, check_batch_size, epoch_order
    from labkit.learning.modes import evaluating
    from pytorch_mastery import one_cycle
    from robustness import attacks, report
    from robustness.model import make_network

    data = run.data(cfg.data, ImageData)
    x, y = data.train.tensors(run.device)
    held = max(1, round(cfg.validation * len(x)))
    check_batch_size(len(x) - held, cfg.batch_size)
    order = torch.tensor(epoch_order(len(x), 0, 0), device=run.device)
    x_valid, y_valid = x[order[:held]].float() / 255, y[order[:held]]
    x, y = x[order[held:]].float() / 255, y[order[held:]]

    image = (x.shape[1], x.shape[2], x.shape[3])
    model = make_network(cfg.network, image, len(data.classes), cfg.base).to(run.device)
    adam = torch.optim.Adam(model.parameters(), cfg.lr, fused=True)
    run.track(model=model, adam=adam)

    for step in run.steps(cfg.steps):
        adam.param_groups[0]["lr"] = one_cycle(step, cfg.steps, cfg.lr)
        index = torch.tensor(batch_indices(len(x), cfg.batch_size, step, cfg.seed))
        index = index.to(run.device)
        images, labels = x[index], y[index]
        if cfg.method != "standard":
            with evaluating(model), run.autocast():
                noise = attacks.random_start(images, cfg.epsilon, "linf")
                count = cfg.inner_steps if cfg.method == "pgd" else 1
                images = attacks.pgd(
                    model, images, labels, cfg.epsilon, count, cfg.inner_size, start=noise
                )
        with run.autocast():
            loss = F.cross_entropy(model(images), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            run.log({"train/loss": loss.detach(), "train/lr": adam.param_groups[0]["lr"]}, step)
        if (step + 1) % cfg.look_every == 0 or step == cfg.steps - 1:
            held_out = report.held_out(model, x_valid[:500], y_valid[:500], cfg.epsilon)
            run.log({"valid/pgd_accuracy": held_out}, step)
    run.save()

    model.eval()
    x_test, y_test = data.test.tensors(run.device)
    chosen = torch.tensor(epoch_order(len(x_test), 0, 0)[: cfg.attacked], device=run.device)
    settings = report.Attacks(
        cfg.epsilon, cfg.attack_steps, cfg.restarts, cfg.queries, cfg.square_images, cfg.seed
    )
    run.plot("training", "train/loss")
    run.plot("held_out", "valid/pgd_accuracy")
    run.result(report.measure(run, model, x_test.float() / 255, y_test, chosen, settings))


if __name__ == "__main__":
    train()
