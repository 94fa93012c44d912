"""FID from features, as week 12 computes it, against clean-fid and torch-fidelity.

    python benchmarks/fid_numerics.py [--samples 10000] [--dimensions 2048] [--threads 0]

Equal on all sides: two sets of float32 features, from which each computes mean, covariance (in
float64) and distance as it does for a user. Sides run in turns, ours first every other time. The
features have a spectrum that falls as a power of its rank, about as Inception's does. Peers that
are not installed are left out: pip install clean-fid==0.1.35 torch-fidelity==0.4.0
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from evaluation.frechet import distance_from, gaussian

Side = Callable[[], float]


def features(samples: int, dimensions: int, seed: int) -> np.ndarray:
    """float32 (N, D), correlated; the second set is a little wider and shifted."""
    basis = np.random.default_rng(0).standard_normal((dimensions, dimensions))
    scales = np.arange(1, dimensions + 1) ** -0.7
    rng = np.random.default_rng(seed)
    drawn = (rng.standard_normal((samples, dimensions)) * scales) @ basis
    found = 0.1 * (1 + 0.05 * seed) * drawn + 0.01 * seed
    return found.astype(np.float32)


def statistics_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As clean-fid computes them from features (fid.py, get_folder_features and fid_folder)."""
    return np.mean(x, axis=0), np.cov(x, rowvar=False)


def sides(x: np.ndarray, y: np.ndarray) -> dict[str, Side]:
    """Each side's way from features to a distance, those that are installed."""
    found: dict[str, Side] = {"ours": lambda: distance_from(y, gaussian(x))}
    try:
        clean = importlib.import_module("cleanfid.fid")
        found["clean-fid"] = lambda: float(
            np.real(clean.frechet_distance(*statistics_of(x), *statistics_of(y)))
        )
    except ImportError:
        print("clean-fid is not installed")
    try:
        fidelity = importlib.import_module("torch_fidelity.metric_fid")
        found["torch-fidelity"] = lambda: float(
            fidelity.fid_statistics_to_metric(
                *(fidelity.fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y)), False
            )["frechet_inception_distance"]
        )
    except ImportError:
        print("torch-fidelity is not installed")
    return found


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    defaults = (("samples", 10_000), ("dimensions", 2048), ("turns", 3), ("threads", 0))
    for name, default in defaults:
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if args.threads:
        threadpool_limits(args.threads)
        torch.set_num_threads(args.threads)
    x, y = (features(args.samples, args.dimensions, seed) for seed in (1, 2))
    print(f"{args.samples:,} x {args.dimensions:,}, threads: {args.threads or 'as they come'}")
    racing = sides(x, y)
    seconds: dict[str, list[float]] = {name: [] for name in racing}
    work: dict[str, list[float]] = {name: [] for name in racing}
    values: dict[str, float] = {}
    for turn in range(args.turns):
        for name in list(racing)[:: 1 if turn % 2 == 0 else -1]:
            begun, used = time.perf_counter(), time.process_time()
            values[name] = racing[name]()
            seconds[name].append(time.perf_counter() - begun)
            work[name].append(time.process_time() - used)
    for name in racing:
        print(
            f"  {name:15} {spread(seconds[name], 2)} s   processor {spread(work[name], 2)} s   "
            f"distance {values[name]:.6f}"
        )
        if name != "ours":
            pairs = [b / a for a, b in zip(seconds["ours"], seconds[name], strict=True)]
            gap = abs(values[name] - values["ours"]) / values[name]
            print(f"  {'':15} {spread(pairs, 1)} times ours; relative difference {gap:.1e}")


if __name__ == "__main__":
    main()
