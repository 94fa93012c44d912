"""Randomised SVD of week 1 against numpy.linalg.svd and scikit-learn's: seconds and error.

    python benchmarks/randomized_svd.py [--rounds 3] [--rank 50] [--threads 1]

A (4,000 x 2,000, float64) has random singular vectors and known singular values:
σ_i = 0.95^i + 1e-3 (fast: signal over a floor of noise) or σ_i = 1/√i (slow). So the best error at
rank k is known (Eckart and Young): σ_{k+1} in the spectral norm, √(Σ_{i>k} σ_i²) in Frobenius'.
Each function has its own defaults; only the seed is set, another one every round. The three run in
turns, in another order every round. The error is measured outside the clock; its worst is printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from sklearn.utils.extmath import randomized_svd as sklearn_svd
from threadpoolctl import threadpool_limits

from math_ml.svd import approximation_error, randomized_svd

ROWS, COLUMNS = 4000, 2000
SPECTRA = {
    "fast": 0.95 ** np.arange(COLUMNS) + 1e-3,
    "slow": 1 / np.sqrt(np.arange(1, COLUMNS + 1)),
}
Svd = tuple[np.ndarray, np.ndarray, np.ndarray]
METHODS: dict[str, Callable[[np.ndarray, int, int], Svd]] = {
    "ours": lambda a, rank, seed: randomized_svd(a, rank, seed=seed),
    "scikit-learn": lambda a, rank, seed: sklearn_svd(a, rank, random_state=seed),
    "numpy": lambda a, rank, seed: np.linalg.svd(a, full_matrices=False),
}


def matrix(sigma: np.ndarray) -> np.ndarray:
    """A matrix with these singular values."""
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((ROWS, len(sigma))))
    v, _ = np.linalg.qr(rng.standard_normal((COLUMNS, len(sigma))))
    return (u * sigma) @ v.T


def excess(a: np.ndarray, sigma: np.ndarray, svd: Svd, rank: int) -> tuple[float, float]:
    """Spectral and Frobenius error of the first `rank` triplets, over the least possible."""
    u, s, vt = svd
    spectral, frobenius = approximation_error(a, u[:, :rank], s[:rank], vt[:rank])
    return spectral / sigma[rank], frobenius / float(np.linalg.norm(sigma[rank:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("rounds", 3), ("rank", 50), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    threadpool_limits(args.threads)
    print(f"{ROWS} x {COLUMNS}, float64, rank {args.rank}, threads {args.threads}")
    for kind, sigma in SPECTRA.items():
        a = matrix(sigma)
        seconds: dict[str, list[float]] = {name: [] for name in METHODS}
        errors: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
        for turn in range(args.rounds):
            for i in range(len(METHODS)):
                name = list(METHODS)[(turn + i) % len(METHODS)]
                begun = time.perf_counter()
                svd = METHODS[name](a, args.rank, turn)
                seconds[name].append(time.perf_counter() - begun)
                errors[name].append(excess(a, sigma, svd, args.rank))
        for name in METHODS:
            spectral, frobenius = np.max(errors[name], axis=0)
            print(
                f"{kind}  {name:12}  {statistics.median(seconds[name]):6.3f} s   error over best: "
                f"spectral {spectral:.4f}, Frobenius {frobenius:.4f}",
                flush=True,
            )
        for peer in ("numpy", "scikit-learn"):
            ratios = [p / o for p, o in zip(seconds[peer], seconds["ours"], strict=True)]
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            print(
                f"{kind}  {peer} takes {middle:.1f} times as long as ours "
                f"(median of {len(ratios)}; {low:.1f} to {high:.1f})"
            )


if __name__ == "__main__":
    main()
