"""Train the CNN and publish it as the lab's classifier of digits.

    python -m pytorch_mastery.train +size=tiny

The set is in memory as one uint8 tensor; a batch is an index into it, augmented as a whole.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from labkit import LabConfig, Run, lab
from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from pytorch_mastery.model import CNN


@dataclass
class Config(LabConfig):
    """Week 3: a CNN on MNIST in PyTorch."""

    data: str = "mnist"
    """Training set: an image set of the registry."""
    steps: PositiveInt = 6000
    """Optimiser steps."""
    batch_size: Annotated[int, Bounds(least=2)] = 256
    """Images a step: two or more, as batch normalisation needs the spread of a batch."""
    width: PositiveInt = 64
    """Channels of the first convolution; the others have 2, 4 and 4 times as many."""
    lr: PositiveFloat = 6e-3
    """Peak of the one-cycle learning rate."""
    weight_decay: NonNegativeFloat = 0.05
    """AdamW's decoupled weight decay."""
    shift: Annotated[int, Bounds(least=0, most=13)] = 2
    """Augmentation: every image is shifted by up to this many pixels (of 28) each way."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""


@lab("pytorch_mastery", Config)
def train(cfg: Config, run: Run) -> None:
    """Train, test, publish."""
    import torch
    import torch.nn.functional as F

    from labkit.data import ImageData, batch_indices, check_batch_size
    from pytorch_mastery.augment import random_shift
    from pytorch_mastery.evaluate import accuracy
    from pytorch_mastery.model import CNN, resize, save_classifier
    from pytorch_mastery.schedule import one_cycle

    data = run.data(cfg.data, ImageData)
    check_batch_size(len(data.train), cfg.batch_size)
    x, y = data.train.tensors(run.device)
    x_test, y_test = data.test.tensors(run.device)
    x = resize(x.float()).round().to(torch.uint8) if x.shape[-1] != 28 else x  # digits are 8 x 8

    model = CNN(x.shape[1], len(data.classes), cfg.width, data.mean, data.std)
    model.to(run.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True
    )
    recent = {"loss": torch.zeros((), device=run.device)}  # mean of about the last 50 steps
    run.track(model=model, optimizer=optimizer, recent=recent)

    for step in run.steps(cfg.steps):
        lr = one_cycle(step, cfg.steps, cfg.lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        index = torch.tensor(batch_indices(len(x), cfg.batch_size, step, cfg.seed))
        index = index.to(run.device)
        images = random_shift(x[index], cfg.shift).float() / 255
        with run.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent["loss"].lerp_(loss.detach(), max(1 / (step + 1), 0.02))
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            run.log({"train/loss": loss, "train/lr": lr}, step)
    run.save()

    test_accuracy = accuracy(model, x_test, y_test)
    run.plot("training", "train/loss", logy=True)
    run.plot("learning_rate", "train/lr")
    mistakes(run, model, x_test, y_test, data.classes)
    run.publish(lambda folder: save_classifier(model, folder))
    run.result({"test_accuracy": test_accuracy, "train_loss": float(recent["loss"])})


def mistakes(run: Run, model: "CNN", x: "Tensor", y: "Tensor", classes: tuple[str, ...]) -> None:
    """Draw up to 40 test images that the network got wrong, titled `truth, answer`."""
    import torch

    from labkit.learning.modes import evaluating

    with evaluating(model):
        answer = torch.cat([model(images.float() / 255).argmax(1) for images in x.split(500)])
    wrong = (answer != y).nonzero().flatten()[:40]
    if len(wrong):
        titles = [f"{classes[y[i]]}, not {classes[answer[i]]}" for i in wrong]
        run.grid("mistakes", x[wrong], columns=10, titles=titles)


if __name__ == "__main__":
    train()
