"""Measures that more than one week reports."""

from __future__ import annotations

import numpy as np


def gaussian_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) in float64 of features (N, D), N >= 2."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features have shape (N, D) with N >= 2, not {features.shape}")
    return features.mean(axis=0), np.cov(features, rowvar=False).reshape(
        features.shape[1], features.shape[1]
    )


def frechet_distance(
    mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)). With S = C1^(1/2), the matrix S C2 S is symmetric
    and has the eigenvalues of C1 C2, so the last trace is the sum of the square roots of its
    eigenvalues: `eigh` twice, always real, and several times faster than a general matrix square
    root.

    Args: means (D,), symmetric positive semi-definite covariances (D, D).
    """
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ cov2 @ root)
    trace = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(np.clip(inner, 0, None)).sum()
    return float(np.sum((mean1 - mean2) ** 2) + trace)
