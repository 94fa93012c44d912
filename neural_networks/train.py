"""A two-layer network on MNIST, forward and backward, in NumPy alone.

LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", section III: a
network 784-300-10 had 4.7 % test error.

    python -m neural_networks.train +size=tiny      # 98.3 % or better in seconds on a laptop
    python -m neural_networks.train                 # full: 300 hidden units, no GPU needed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from labkit import LabConfig, Run, lab
from labkit.config.bounds import (
    Bounds,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
)

if TYPE_CHECKING:
    import numpy as np

    from labkit.data import ImageData
    from neural_networks.model import Params
    from neural_networks.optim import SGD, Adam


@dataclass
class Config(LabConfig):
    """Two-layer network on MNIST in NumPy (LeCun et al. 1998)."""

    data: str = "mnist"
    """Training set: a name of the registry."""
    validation: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Share of the training images held out for the validation curve; never trained on."""
    inputs: Literal["standardized", "unit", "raw"] = "standardized"
    """Scale of the pixels: mean 0 and deviation 1, 0..1, or 0..255."""
    shift: NonNegativeInt = 1
    """Each training image is shifted by up to this many pixels each way, newly in every epoch."""
    hidden: PositiveInt = 300
    """Hidden units."""
    activation: Literal["relu", "scaled_tanh"] = "relu"
    """Nonlinearity of the hidden layer; scaled_tanh is the paper's, 1.7159 tanh(2/3 z)."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Update rule; adam needs a learning rate near 0.002."""
    lr: PositiveFloat = 0.1
    """Peak learning rate; it falls to 0 linearly."""
    warmup: Share = 0.05
    """Share of the steps over which the learning rate rises."""
    momentum: Share = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Use Nesterov's form of momentum."""
    weight_decay: NonNegativeFloat = 5e-5
    """Weight decay: L2 in SGD, decoupled in Adam."""
    smoothing: Share = 0.05
    """Label smoothing: this much of every target is spread over all classes."""
    batch_size: PositiveInt = 128
    """Images per step."""
    epochs: PositiveInt = 40
    """Passes over the training images."""
    threads: PositiveInt = 1
    """Threads of the matrix products; layers this small gain little from a second core."""


@lab("neural_networks", Config, backend="numpy")
def train(cfg: Config, run: Run) -> None:
    """The loop: a batch, forward, loss, backward, update."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    from labkit.data import ImageData, batch_indices, check_batch_size, check_share
    from neural_networks import activations, inputs, model, optim
    from neural_networks.losses import cross_entropy

    threadpool_limits(cfg.threads)
    data = run.data(cfg.data, ImageData)
    check_share(len(data.train), cfg.validation)
    order = np.random.default_rng(0).permutation(len(data.train))  # one split for all seeds
    held_out, kept = np.split(order, [round(cfg.validation * len(order))])
    scale = inputs.Scaling(data.mean, data.std, cfg.inputs)
    x_valid, y_valid = scale(data.train.x[held_out]), data.train.y[held_out]
    images, labels = inputs.shifts(data.train.x[kept], cfg.shift), data.train.y[kept]

    f = getattr(activations, cfg.activation)
    params = model.init(x_valid.shape[1], cfg.hidden, len(data.classes), cfg.seed, f)
    opt = _optimizer(cfg, params)
    run.track(params=params, opt=opt.state)

    check_batch_size(len(labels), cfg.batch_size)
    epoch = len(labels) // cfg.batch_size  # steps
    steps = cfg.epochs * epoch
    for step in run.steps(steps):
        batch = batch_indices(len(labels), cfg.batch_size, step, cfg.seed)
        x = scale(inputs.shifted_batch(images, batch, cfg.seed, step))  # (N, D)
        logits, hidden = model.forward(params, x, f)  # (N, K), (N, H)
        loss, dlogits = cross_entropy(logits, labels[batch], cfg.smoothing)
        grads = model.backward(params, x, hidden, dlogits, f)
        lr = cfg.lr * optim.warmup_linear(step, steps, round(cfg.warmup * steps))
        opt.step(grads, lr)
        if step % 10 == 0:
            alive = 100 * float((hidden > 0).any(axis=0).mean())  # a ReLU that never fires is dead
            run.log({"train/loss": loss, "train/lr": lr, "train/alive_units": alive}, step)
        if (step + 1) % epoch == 0:
            logits, _ = model.forward(params, x_valid, f)
            valid_loss, _ = cross_entropy(logits, y_valid, cfg.smoothing)
            accuracy = _accuracy(logits, y_valid)
            run.log({"valid/loss": valid_loss, "valid/accuracy": accuracy}, step)
    run.save()

    # The test set is used here, once: every choice was made on held-out training images.
    logits, _ = model.forward(params, scale(data.test.x), f)
    run.result({"test_accuracy": _accuracy(logits, data.test.y)})
    run.plot("loss", "train/loss", "valid/loss", logy=True)
    run.plot("accuracy", "valid/accuracy")
    _draw(run, data, params, logits)


def _optimizer(cfg: Config, params: Params) -> SGD | Adam:
    from neural_networks.optim import SGD, Adam

    if cfg.optimizer == "adam":
        return Adam(params, weight_decay=cfg.weight_decay)
    return SGD(params, cfg.momentum, cfg.weight_decay, cfg.nesterov)


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percentage of rows (N, K) whose greatest logit is the label's (N,)."""
    return 100 * float((logits.argmax(axis=1) == labels).mean())


def _draw(run: Run, data: ImageData, params: Params, logits: np.ndarray) -> None:
    """The most confident test mistakes, and the weights into the most influential units."""
    import numpy as np

    guess = logits.argmax(axis=1)
    margin = logits.max(axis=1) - logits[np.arange(len(guess)), data.test.y]
    worst = np.argsort(-margin)[: min(32, int((margin > 0).sum()))]
    names = data.classes
    titles = [f"{names[data.test.y[i]]} → {names[guess[i]]}" for i in worst]
    if len(worst):
        run.grid("mistakes", data.test.x[worst], titles=titles)
    units = np.argsort(-np.linalg.norm(params["W2"], axis=1))[:64]
    weights = params["W1"].T[units]  # (64, D)
    weights = 0.5 + 0.5 * weights / (np.abs(weights).max(axis=1, keepdims=True) + 1e-12)  # 0: grey
    run.grid("weights", weights.reshape(-1, *data.test.x.shape[1:]))


if __name__ == "__main__":
    train()
