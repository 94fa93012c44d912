"""The week's figures: each function takes results and returns a matplotlib figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labkit.show.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labkit.data import ImageData, TableData
    from math_ml.tables import Classification, Path, Regression

Array = np.ndarray


def paths(study: Regression) -> Figure:
    """Weights of ridge and lasso against α, and the fold errors that chose it."""
    figure = new_figure(10, 6.5)
    for column, (name, path) in enumerate((("ridge", study.ridge), ("lasso", study.lasso))):
        top = figure.add_subplot(2, 2, column + 1)
        _weights_against_alpha(top, path, study.features)
        nonzeros = np.count_nonzero(path.coefs[path.chosen])
        kept = f"{nonzeros} of {len(study.features)} weights not 0" if name == "lasso" else ""
        top.set_title(f"{name}   {kept}   test R² {study.r2[name]:.3f}", fontsize=10)
        _errors_against_alpha(figure.add_subplot(2, 2, column + 3, sharex=top), path)
    figure.legend(*top.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def _weights_against_alpha(axes: Axes, path: Path, features: tuple[str, ...]) -> None:
    from matplotlib import colormaps

    colors = colormaps["tab10" if len(features) <= 10 else "tab20"](np.arange(20))
    for j, name in enumerate(features):
        axes.plot(path.alphas, path.coefs[:, j], color=colors[j % 20], label=name, lw=1.4)
    axes.axvline(path.alphas[path.chosen], color="black", ls="--", lw=1)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xscale("log")
    axes.set_ylabel("weight of the standardised column")
    axes.grid(alpha=0.3)


def _errors_against_alpha(axes: Axes, path: Path) -> None:
    mean = path.errors.mean(axis=1)
    error = path.errors.std(axis=1, ddof=1) / np.sqrt(path.errors.shape[1])
    axes.errorbar(path.alphas, mean, error, marker="o", ms=3, lw=1, elinewidth=0.6, capsize=2)
    axes.axvline(path.alphas[path.chosen], color="black", ls="--", lw=1, label="chosen α")
    axes.set_xlabel("α")
    axes.set_ylabel("squared error of held-out folds\n(mean ± standard error)")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def newton(study: Classification) -> Figure:
    """Distance from the minimum, step by step: Newton's method and gradient descent."""
    figure = new_figure()
    axes = figure.add_subplot()
    for values, name, marker in (
        (study.newton, "Newton", "o"),
        (study.descent, "gradient descent, step 1/L", None),
    ):
        shown = values[values > 1e-13]
        axes.plot(1 + np.arange(len(shown)), shown, label=name, marker=marker, ms=4)
    axes.set(xscale="log", yscale="log", xlabel="steps + 1", ylabel="loss above the minimum")
    axes.set_title(f"logistic regression on breast_cancer, λ = {study.l2:.3g}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def calibration(study: Classification) -> Figure:
    """Reliability diagram of the test rows, above the histogram of the probabilities."""
    from math_ml.logistic import reliability

    mean_p, share, cases = reliability(study.labels, study.probability)
    low, high = _wilson(share, cases)
    figure = new_figure(5, 5.6)
    top, bottom = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    top.plot([0, 1], [0, 1], color="grey", lw=1, label="perfect")
    top.errorbar(
        mean_p, share, (share - low, high - share), marker="o", lw=1, elinewidth=0.7, capsize=2,
        label="bins, with 95 % intervals",
    )  # fmt: skip
    for p, s, count in zip(mean_p, share, cases, strict=True):
        top.annotate(str(count), (p, s), (5, -11), textcoords="offset points", fontsize=8)
    top.set_ylabel("share that was malignant")
    top.set_title(f"{len(study.labels)} test rows, ECE {study.ece:.3f}", fontsize=10)
    top.set_ylim(-0.05, 1.05)
    top.legend()
    bottom.hist(study.probability, bins=np.linspace(0, 1, 21))
    bottom.set(yscale="log", xlabel="predicted probability of malignant", ylabel="rows")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    return figure


def _wilson(share: Array, cases: Array) -> tuple[Array, Array]:
    """Ends of Wilson's 95 % interval for a share of so many cases; also for shares of 0 and 1."""
    from scipy.stats import binomtest

    counts = zip(np.rint(share * cases).astype(int).tolist(), cases.tolist(), strict=True)
    ends = [binomtest(hits, count).proportion_ci(method="wilson") for hits, count in counts]
    return np.array([end.low for end in ends]), np.array([end.high for end in ends])


def descent(excess: dict[str, tuple[Array, float]], step_size: float) -> Figure:
    """Gradient descent on scaled and on raw columns."""
    figure = new_figure()
    axes = figure.add_subplot()
    for name, (values, condition) in excess.items():
        axes.plot(values, label=f"{name} columns, condition number {condition:,.0f}")
    axes.set(yscale="log", xlabel="step", ylabel="training loss above the least, %")
    axes.set_title(f"least squares on diabetes, step {step_size:g}/L", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def class_weights(weights: Array, data: ImageData) -> Figure:
    """One picture per class of softmax weights (D, K): blue is positive evidence, red negative."""
    channels, height, width = data.train.x.shape[1:]
    pictures = weights.T.reshape(-1, channels, height, width).mean(axis=1)
    limit = float(np.quantile(np.abs(pictures), 0.995)) or 1.0
    columns = 5
    rows = -(-len(pictures) // columns)
    figure = new_figure(columns * 1.6, rows * 1.8)
    for k, picture in enumerate(pictures):
        axes = figure.add_subplot(rows, columns, k + 1)
        image = axes.imshow(picture, cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set_title(data.classes[k], fontsize=10)
        axes.axis("off")
    figure.colorbar(image, ax=figure.axes, shrink=0.8, label="weight")
    return figure


def confusion(logits: Array, data: ImageData) -> Figure:
    """Confusion matrix of the test images, without the correct answers."""
    count = len(data.classes)
    guess = logits.argmax(axis=1)
    table = np.bincount(data.test.y * count + guess, minlength=count * count)
    table = table.reshape(count, count)
    hits = table.diagonal().sum()
    mistakes = table - np.diag(table.diagonal())
    figure = new_figure(5.6, 5)
    axes = figure.add_subplot()
    axes.imshow(mistakes, cmap="Blues")
    for i, j in np.argwhere(mistakes):
        dark = mistakes[i, j] > mistakes.max() / 2
        axes.text(
            j, i, mistakes[i, j], ha="center", va="center", fontsize=8,
            color="white" if dark else "black",
        )  # fmt: skip
    axes.set_xticks(range(count), data.classes)
    axes.set_yticks(range(count), data.classes)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{table.sum() - hits} mistakes in {table.sum()} test images", fontsize=10)
    return figure


def loss_surface(data: TableData) -> Figure:
    """Least squares in two correlated columns of the diabetes table, and the descent paths."""
    from math_ml.descent_figures import surface
    from math_ml.gradient_descent import least_squares
    from math_ml.model_selection import Standardizer

    pair = [data.features.index(name) for name in ("s1", "s2")]
    x = Standardizer.fit(data.x_train[:, pair])(data.x_train[:, pair])
    f = least_squares(x, data.y_train - data.y_train.mean())
    start = f.minimum() + np.array([-60.0, 30.0])
    return surface(f, start, names=("weight of s1", "weight of s2"))
