"""Linear and logistic regression from scratch: a picture classifier, and three tables.

LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Fig. 9: a linear
classifier had 12.0 % test error on MNIST.

    python -m math_ml.train +size=tiny      # 92 % on MNIST, and the whole week, in seconds
    python -m math_ml.train                 # full: more epochs; no GPU needed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from labkit import LabConfig, Run, lab
from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from labkit.show.console import say, warn

if TYPE_CHECKING:
    import numpy as np

    from labkit.data import ImageData


@dataclass
class Config(LabConfig):
    """Linear, ridge, lasso, logistic and softmax regression in NumPy."""

    data: str = "mnist"
    """Images for softmax regression: a name of the registry."""
    validation: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Share of the training images held out for the validation curve; never trained on."""
    batch_size: PositiveInt = 500
    """Images per step."""
    epochs: PositiveInt = 40
    """Passes over the training images."""
    lr: PositiveFloat = 0.1
    """First learning rate of softmax regression; it falls to 0 linearly."""
    momentum: Share = 0.9
    """Momentum of its steps."""
    l2: NonNegativeFloat = 1e-3
    """Its penalty λ on squared weights (added to the mean loss)."""
    folds: Annotated[int, Bounds(least=2, most=100)] = 10
    """Folds of the cross-validation that chooses every penalty of the tables."""
    wine: bool = True
    """Also predict the quality of wines, if their table is present or can be downloaded."""
    columns: Literal["standardized", "raw"] = "standardized"
    """Columns of the diabetes table for gradient descent: standardised, or as measured."""
    gd_steps: PositiveInt = 100
    """Steps of gradient descent on the diabetes table."""
    gd_step_size: PositiveFloat = 1.0
    """Its step, in units of 1/L, L the largest eigenvalue of the Hessian; stable below 2."""
    threads: PositiveInt = 1
    """Threads of the matrix products."""


@lab("math_ml", Config, backend="numpy")
def train(cfg: Config, run: Run) -> None:
    """Softmax regression, step by step; then the tables."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    from labkit.data import ImageData, batch_indices, check_share
    from math_ml import figures, model, model_selection, softmax

    threadpool_limits(cfg.threads)
    data = run.data(cfg.data, ImageData)
    check_share(len(data.train), cfg.validation)
    if 0 in data.std:
        warn("all training images agree in a whole channel: it becomes 0 and predicts nothing")
    x, y = _rows(data, data.train.x), data.train.y
    kept, held_out = model_selection.train_valid_split(len(y), cfg.validation)  # for all seeds one
    x_valid, y_valid, x, y = x[held_out], y[held_out], x[kept], y[kept]

    params = model.init(x.shape[1], len(data.classes))
    velocity = {name: np.zeros_like(w) for name, w in params.items()}
    run.track(params=params, velocity=velocity)

    batch_size = min(cfg.batch_size, len(y))
    epoch = len(y) // batch_size  # steps
    steps = cfg.epochs * epoch
    for step in run.steps(steps):
        batch = batch_indices(len(y), batch_size, step, cfg.seed)
        loss, grads = softmax.loss_and_gradient(params, x[batch], y[batch], cfg.l2)
        lr = cfg.lr * (1 - step / steps)
        softmax.momentum_step(params, velocity, grads, lr, cfg.momentum)
        if step % 10 == 0:
            run.log({"train/loss": loss, "train/lr": lr}, step)
        if (step + 1) % epoch == 0:
            valid_loss, _ = softmax.loss_and_gradient(params, x_valid, y_valid, cfg.l2)
            accuracy = model.accuracy(params, x_valid, y_valid)
            run.log({"valid/loss": valid_loss, "valid/accuracy": accuracy}, step)
    run.save()

    # The test set is used here, once: every choice was made on held-out training images.
    logits = model.logits(params, _rows(data, data.test.x))
    test_accuracy = 100 * float((logits.argmax(axis=1) == data.test.y).mean())
    run.result({"test_accuracy": test_accuracy, **_tables(cfg, run)})
    run.plot("loss", "train/loss", "valid/loss", logy=True)
    run.plot("accuracy", "valid/accuracy")
    run.figure("weights", figures.class_weights(params["W"], data))
    run.figure("confusion", figures.confusion(logits, data))


def _rows(data: ImageData, images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) uint8 as rows (N, D) float32, by the training images' mean and std.

    A channel that has one value in all of them becomes 0, and not 0/0.
    """
    import numpy as np

    mean, std = (np.array(v, np.float32)[:, None, None] for v in (data.mean, data.std))
    std = np.where(std > 0, std, np.float32(1))
    return ((images / np.float32(255) - mean) / std).reshape(len(images), -1)


def _tables(cfg: Config, run: Run) -> dict[str, float]:
    """Linear, ridge, lasso and logistic regression: their metrics, and figures in samples/."""
    from labkit.data import DataError, TableData
    from math_ml import descent_figures, figures, tables

    diabetes = run.data("diabetes", TableData)
    cancer = run.data("breast_cancer", TableData)
    linear = tables.regression(diabetes, cfg.folds, cfg.seed)
    logistic = tables.classification(cancer, cfg.folds, cfg.seed, steps=1000)
    excess = {
        kind: tables.descent_excess(diabetes, kind, cfg.gd_steps, cfg.gd_step_size)
        for kind in ("standardized", "raw")
    }
    metrics = {
        "diabetes_r2": linear.r2["lasso"],
        "lasso_nonzeros": linear.nonzeros,
        "cancer_accuracy": logistic.accuracy,
        "cancer_ece": logistic.ece,
        "cancer_log_loss": logistic.log_loss,
        "gd_excess": float(excess[cfg.columns][0][-1]),
        "noise_cv_r2": tables.noise_r2(cfg.seed),
    }
    if cfg.wine:
        try:
            wine = tables.regression(run.data("wine_quality", TableData), cfg.folds, cfg.seed)
            metrics["wine_r2"] = wine.r2["lasso"]
            run.figure("wine_paths", figures.paths(wine))
        except DataError as error:
            reason = str(error).partition("\n")[0]
            say(f"without the wines, and so without wine_r2: {reason}")
    run.figure("diabetes_paths", figures.paths(linear))
    run.figure("newton", figures.newton(logistic))
    run.figure("calibration", figures.calibration(logistic))
    run.figure("descent", figures.descent(excess, cfg.gd_step_size))
    run.figure("loss_surface", figures.loss_surface(diabetes))
    run.figure("condition", descent_figures.steps_against_condition())
    return metrics


if __name__ == "__main__":
    train()
