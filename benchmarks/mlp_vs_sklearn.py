"""Week 2's network against scikit-learn's MLPClassifier: seconds and accuracy at equal work.

    python benchmarks/mlp_vs_sklearn.py [--seeds 5] [--epochs 4] [--hidden 256] [--threads 1]

Equal on both sides: the images (MNIST, standardised, float32), the network 784-256-10 with ReLU,
the batch size of 128, the epochs, cross-entropy, SGD with momentum 0.9 at a constant rate of 0.05,
no weight decay, no validation, and the number of BLAS threads. The week's own advantages (shifted
images, a falling rate, smoothing) are off. The seeds are run in turns, ours first every other time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from labkit.data import ImageData, batch_indices, load
from neural_networks import SGD, Scaling, backward, cross_entropy, forward, init

BATCH, LR, MOMENTUM = 128, 0.05, 0.9
Split = tuple[np.ndarray, np.ndarray]
Score = tuple[float, float]
"""Seconds of training, and test accuracy in %."""


def ours(train: Split, test: Split, hidden: int, epochs: int, seed: int) -> Score:
    (x, y), begun = train, time.perf_counter()
    params = init(x.shape[1], hidden, 10, seed)
    opt = SGD(params, MOMENTUM)
    for step in range(epochs * (len(x) // BATCH)):
        batch = batch_indices(len(x), BATCH, step, seed)
        logits, h = forward(params, x[batch])
        _, dlogits = cross_entropy(logits, y[batch])
        opt.step(backward(params, x[batch], h, dlogits), LR)
    seconds = time.perf_counter() - begun
    guess = forward(params, test[0])[0].argmax(axis=1)
    return seconds, 100 * float((guess == test[1]).mean())


def theirs(train: Split, test: Split, hidden: int, epochs: int, seed: int) -> Score:
    peer = MLPClassifier(
        (hidden,), solver="sgd", alpha=0, batch_size=BATCH, learning_rate_init=LR,
        momentum=MOMENTUM, nesterovs_momentum=False, max_iter=epochs, tol=0,
        n_iter_no_change=epochs + 1, random_state=seed,
    )  # fmt: skip
    begun = time.perf_counter()
    peer.fit(*train)
    seconds = time.perf_counter() - begun
    assert peer.n_iter_ == epochs
    return seconds, 100 * float(peer.score(*test))


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("seeds", 5), ("epochs", 4), ("hidden", 256), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    threadpool_limits(args.threads)
    warnings.filterwarnings("ignore", message="Stochastic Optimizer: Maximum iterations")
    data = load("mnist")
    assert isinstance(data, ImageData)
    scale = Scaling(data.mean, data.std, "standardized")
    train, test = (scale(data.train.x), data.train.y), (scale(data.test.x), data.test.y)
    scores: dict[str, list[Score]] = {"ours": [], "scikit-learn": []}
    for seed in range(args.seeds):
        turns = [("ours", ours), ("scikit-learn", theirs)]
        for name, fit in turns if seed % 2 == 0 else turns[::-1]:
            score = fit(train, test, args.hidden, args.epochs, seed)
            scores[name].append(score)
            print(f"seed {seed}  {name:12}  {score[0]:6.2f} s  {score[1]:.2f} %", flush=True)
    for name, results in scores.items():
        seconds, accuracy = (list(column) for column in zip(*results, strict=True))
        print(f"{name:12}  {spread(seconds, 2)} s   {spread(accuracy, 2)} %")
    pairs = zip(scores["scikit-learn"], scores["ours"], strict=True)
    ratios = [peer[0] / own[0] for peer, own in pairs]
    print(
        f"scikit-learn takes {spread(ratios, 2)} times as long: median and range of {len(ratios)}"
    )


if __name__ == "__main__":
    main()
