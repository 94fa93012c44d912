"""Train a classifier, plainly or against attacks, attack it and explain its answers.

python -m robustness.train +size=tiny                          adversarial training by FGSM-RS
python -m robustness.train +size=tiny +experiment=standard     week 3's CNN: PGD brings it near 0 %
python -m robustness.train +size=tiny +experiment=pgd          Madry's adversarial training
python -m robustness.train +size=tiny +experiment=smoothing    trained on noise, for certificates
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveFloat, PositiveInt
from robustness.settings import AttackSettings, CertifySettings, ExplainSettings

GROWS = 0.3
"""Share of the steps in which PGD's epsilon grows to its full size. Against the full attack from
the start, the network answers one class for everything and stays there."""


@dataclass
class Config(LabConfig):
    """Week 22: attacks on classifiers, defences, and explanations."""

    data: str = "mnist"
    """An image set of the registry."""
    validation: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Share of the training images held out: settings are chosen on them."""
    method: Literal["standard", "fgsm_rs", "pgd", "gaussian"] = "pgd"
    """What is trained on: the images; images attacked by FGSM from a random start, or by PGD; or
    images with Gaussian noise (certify.deviation)."""
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
    temperature: PositiveFloat = 1.0
    """Training divides the logits by it. Far above 1 (defensive distillation, Papernot et al. 2016)
    the logits grow as much, and gradients of the test's cross-entropy vanish."""
    steps: PositiveInt = 40_000
    """Optimiser steps."""
    batch_size: PositiveInt = 128
    """Images a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of Adam."""
    fall: PositiveFloat = 30.0
    """Points by which accuracy under PGD on held-out images may be below its best; then training
    stops, and the best weights return."""
    attack: AttackSettings = field(default_factory=AttackSettings)
    """The test's attacks."""
    certify: CertifySettings = field(default_factory=CertifySettings)
    """The test's certificates."""
    explain: ExplainSettings = field(default_factory=ExplainSettings)
    """The test's explanations."""
    look_every: PositiveInt = 500
    """Steps between two measures of PGD on held-out images."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method in ("fgsm_rs", "pgd") and not self.inner_size:
            raise UsageError(f"inner_size=0 attacks nothing; try inner_size={self.epsilon}")


@lab("robustness", Config)
def train(cfg: Config, run: Run) -> None:
    """Train by `method`, then attack, certify and explain."""
    import torch
    import torch.nn.functional as F

    from labkit.data import ImageData, batch_indices, check_batch_size, epoch_order
    from labkit.learning.modes import evaluating
    from pytorch_mastery import accuracy, one_cycle
    from robustness import report
    from robustness.model import make_network
    from robustness.training import Best, attacked

    data = run.data(cfg.data, ImageData)
    x, y = data.train.tensors(run.device)
    held = max(1, round(cfg.validation * len(x)))
    check_batch_size(len(x) - held, cfg.batch_size)
    order = torch.tensor(epoch_order(len(x), 0, 0), device=run.device)
    x_valid, y_valid = x[order[:held]].float() / 255, y[order[:held]]
    x, y = x[order[held:]].float() / 255, y[order[held:]]

    image = (x.shape[1], x.shape[2], x.shape[3])
    report.check(image, cfg.explain)
    model = make_network(cfg.network, image, len(data.classes), cfg.base).to(run.device)
    adam = torch.optim.Adam(model.parameters(), cfg.lr, fused=True)
    best = Best(cfg.fall)
    run.track(model=model, adam=adam, best=best)
    count = cfg.inner_steps if cfg.method == "pgd" else 1

    for step in run.steps(cfg.steps):
        adam.param_groups[0]["lr"] = one_cycle(step, cfg.steps, cfg.lr)
        index = torch.tensor(batch_indices(len(x), cfg.batch_size, step, cfg.seed))
        index = index.to(run.device)
        images, labels = x[index], y[index]
        grown = min(1.0, (step + 1) / (GROWS * cfg.steps)) if cfg.method == "pgd" else 1.0
        if cfg.method == "gaussian":
            images = images + cfg.certify.deviation * torch.randn_like(images)
        elif cfg.method != "standard":
            with evaluating(model), run.autocast():
                images = attacked(
                    model, images, labels, grown * cfg.epsilon, count, grown * cfg.inner_size
                )
        with run.autocast():
            loss = F.cross_entropy(model(images).float() / cfg.temperature, labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            run.log({"train/loss": loss.detach(), "train/lr": adam.param_groups[0]["lr"]}, step)
        if (step + 1) % cfg.look_every == 0 or step == cfg.steps - 1:
            held_out = report.held_out(model, x_valid[:500], y_valid[:500], cfg.epsilon)
            run.log({"valid/pgd_accuracy": held_out}, step)
            if cfg.method in ("fgsm_rs", "pgd") and best.broken(model, held_out):
                best.restore(model)
                run.stop()
    run.save()

    x_test, y_test = data.test.tensors(run.device)
    chosen = torch.tensor(epoch_order(len(x_test), 0, 0)[: cfg.attack.images], device=run.device)
    tester = report.Tester(run, model.eval(), x_test[chosen].float() / 255, y_test[chosen])
    run.plot("training", "train/loss")
    run.plot("held_out", "valid/pgd_accuracy")
    metrics = {"clean_accuracy": accuracy(model, x_test, y_test)}
    metrics |= tester.attack(cfg.attack, cfg.epsilon, cfg.seed)
    metrics |= tester.certify(cfg.certify, cfg.seed)
    metrics |= tester.explain(cfg.explain, cfg.network, cfg.seed)
    run.result(metrics)


if __name__ == "__main__":
    train()
