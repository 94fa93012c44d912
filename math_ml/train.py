"""Linear and logistic regression from scratch: a picture classifier, and three tables.

LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Fig. 9: a linear
classifier had 12.0 % test error on MNIST.

    python -m math_ml.train +size=tiny      # 92 % on MNIST, and the whole week, in seconds
    python -m math_ml.train                 # full: more epochs; no GPU needed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.show.console import say

if TYPE_CHECKING:
    import numpy as np

    from labkit.data import ImageData


@dataclass
class Config(LabConfig):
    """Linear, ridge, lasso, logistic and softmax regression in NumPy."""

    data: str = "mnist"
    """Images for softmax regression: a name of the registry."""
    validation: float = 0.1
    """Share of the training images held out for the validation curve; never trained on."""
    batch_size: int = 500
    """Images per step."""
    epochs: int = 40
    """Passes over the training images."""
    lr: float = 0.1
    """First learning rate of softmax regression; it falls to 0 linearly."""
    momentum: float = 0.9
    """Momentum of its steps."""
    l2: float = 1e-3
    """Its penalty λ on squared weights (added to the mean loss)."""
    folds: int = 10
    """Folds of the cross-validation that chooses every penalty of the tables."""
    wine: bool = True
    """Also predict the quality of wines, if their table is present or can be downloaded."""
    columns: Literal["standardized", "raw"] = "standardized"
    """Columns of the diabetes table for gradient descent: standardised, or as measured."""
    gd_steps: int = 100
    """Steps of gradient descent on the diabetes table."""
    gd_step_size: float = 1.0
    """Its step, in units of 1/L, L the largest eigenvalue of the Hessian; stable below 2."""
    selection: Literal["inside", "outside"] = "inside"
    """Where columns of pure noise are selected: inside each fold, or once outside on all rows."""
    threads: int = 1
    """Threads of the matrix products."""

    def __post_init__(self) -> None:
        default = {name: f.default for name, f in self.__dataclass_fields__.items()}
        for name in ("batch_size", "epochs", "lr", "gd_steps", "gd_step_size", "threads", "l2"):
            value, least = getattr(self, name), "0 or more" if name == "l2" else "above 0"
            if value < 0 or (value == 0 and name != "l2"):
                raise UsageError(f"{name} must be {least}, got {value}; try {name}={default[name]}")
        for name in ("momentum", "validation"):
            value = getattr(self, name)
            if not 0 <= value < 1 or (value == 0 and name == "validation"):
                raise UsageError(
                    f"{name} must be a share below 1, got {value}; try {name}={default[name]}"
                )
        if not 2 <= self.folds <= 100:
            raise UsageError(f"folds must be from 2 to 100, got {self.folds}; try folds=10")


@lab("math_ml", Config, backend="numpy")
def train(cfg: Config, run: Run) -> None:
    """Softmax regression, step by step; then the tables."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    from labkit.data import ImageData, batch_indices, check_share
    from math_ml import figures, model_selection, softmax

    threadpool_limits(cfg.threads)
    data = run.data(cfg.data, ImageData)
    check_share(len(data.train), cfg.validation)
    x, y = _rows(data, data.train.x), data.train.y
    kept, held_out = model_selection.train_valid_split(len(y), cfg.validation)  # for all seeds one
    x_valid, y_valid, x, y = x[held_out], y[held_out], x[kept], y[kept]

    params = softmax.init(x.shape[1], len(data.classes))
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
            accuracy = softmax.accuracy(params, x_valid, y_valid)
            run.log({"valid/loss": valid_loss, "valid/accuracy": accuracy}, step)
    run.save()

    # The test set is used here, once: every choice was made on held-out training images.
    logits = softmax.logits(params, _rows(data, data.test.x))
    test_accuracy = 100 * float((logits.argmax(axis=1) == data.test.y).mean())
    run.result({"test_accuracy": test_accuracy, **_tables(cfg, run)})
    run.plot("loss", "train/loss", "valid/loss", logy=True)
    run.plot("accuracy", "valid/accuracy")
    run.figure("weights", figures.class_weights(params["W"], data))
    run.figure("confusion", figures.confusion(logits, data))


def _rows(data: ImageData, images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) uint8 as rows (N, D) float32, by the training images' mean and std."""
    import numpy as np

    mean, std = (np.array(v, np.float32)[:, None, None] for v in (data.mean, data.std))
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
        "noise_cv_r2": tables.noise_r2(cfg.selection, cfg.seed),
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
