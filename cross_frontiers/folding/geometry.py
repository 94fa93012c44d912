"""How close two structures are: RMSD after superposition, lDDT and TM-score.

A structure is an array of points (L, 3), one CA atom for each of L residues, in Å.
"""

from __future__ import annotations

import numpy as np

from labkit import exercise

LDDT_CUTOFF = 15.0
"""Å: only pairs that are closer than this in the true structure are compared."""
TOLERANCES = (0.5, 1.0, 2.0, 4.0)
"""Å by which a distance may differ, for a quarter of the score each."""
SHORTEST_SEED = 4
"""Residues of the shortest stretch that the search for the TM-score starts from."""
REFINEMENTS = 20
"""Superpositions at most from one start of that search."""


@exercise(minutes=25)
def kabsch(moving: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation R (3, 3) and the translation t (3,) that bring `moving` closest to `target`.

    Both have shape (L, 3). The points R x + t, as rows `moving @ R.T + t`, have the least sum of
    squared distances from `target` that a *rotation* can reach. With H = Σ (x - x̄)(y - ȳ)ᵀ =
    U S Vᵀ, x of `moving` and y of `target`, it is R = V diag(1, 1, d) Uᵀ, where d = ±1 is the sign
    of det(V Uᵀ): without d, R could be a reflection (Kabsch 1976, 1978). t = ȳ - R x̄.
    """
    centre, goal = moving.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((moving - centre).T @ (target - goal))
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    rotation = vt.T * flip @ u.T
    return rotation, goal - rotation @ centre


def superpose(moving: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`moving`, (L, 3), rotated and moved to where it is closest to `target`."""
    rotation, translation = kabsch(moving, target)
    return moving @ rotation.T + translation


def rmsd(moving: np.ndarray, target: np.ndarray) -> float:
    """Root of the mean squared distance after superposition, Å."""
    return float(np.sqrt(((superpose(moving, target) - target) ** 2).sum(axis=1).mean()))


def distances(points: np.ndarray) -> np.ndarray:
    """Between all pairs of points (L, 3): (L, L)."""
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@exercise(minutes=25)
def lddt(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The local distance difference test of CA atoms, from 0 to 1 (Mariani et al. 2013).

    Both have shape (L, 3). Looked at are all pairs of two different residues whose distance in
    `truth` is below LDDT_CUTOFF. For each of TOLERANCES: the share of these pairs whose distance in
    `predicted` differs by less than the tolerance. The score is the mean of the four shares. No
    superposition is needed.

    Raises ValueError if there is no such pair.
    """
    true = distances(truth)
    near = (true < LDDT_CUTOFF) & ~np.eye(len(truth), dtype=bool)
    if not near.any():
        raise ValueError("lDDT compares pairs of residues, and no two are near each other")
    error = np.abs(distances(predicted) - true)[near]
    return float(np.mean([error < tolerance for tolerance in TOLERANCES]))


@exercise(minutes=15)
def tm_terms(distance: np.ndarray) -> np.ndarray:
    """What each residue adds to the TM-score, (L,), from its distance (L,) after superposition, Å.

    1 / (L (1 + (distance / d0)²)), where d0 = 1.24 (L - 15)^(1/3) - 1.8, but at least 0.5; it is
    0.5 also for L up to 15, where the root has no meaning (Zhang and Skolnick 2004, equation 5).
    """
    length = len(distance)
    scale = max(0.5, 1.24 * (length - 15) ** (1 / 3) - 1.8) if length > 15 else 0.5
    return 1 / (1 + (distance / scale) ** 2) / length


def tm_score(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The TM-score of two structures with the same residues, (L, 3), above 0 and up to 1.

    It is the largest sum of `tm_terms` over all superpositions. They are searched as in the paper:
    superpose each stretch of L, L/2, L/4 ... residues, then again those that came close, until they
    stay the same.
    """
    length = len(truth)
    size, best = length, 0.0
    while size >= min(SHORTEST_SEED, length):
        for start in range(0, length - size + 1, max(1, size // 4)):
            best = max(best, _refined(predicted, truth, np.arange(start, start + size)))
        size //= 2
    return best


def _refined(predicted: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> float:
    """The best sum of `tm_terms` on the way from the superposition of these residues."""
    scale = 1.24 * max(len(truth) - 15, 1) ** (1 / 3) - 1.8
    near, best = min(8.0, max(4.5, scale)) - 1, 0.0
    for _ in range(REFINEMENTS):
        rotation, translation = kabsch(predicted[chosen], truth[chosen])
        distance = np.linalg.norm(predicted @ rotation.T + translation - truth, axis=1)
        best = max(best, float(tm_terms(distance).sum()))
        found = np.flatnonzero(distance < near)
        if len(found) < 3:
            found = np.argsort(distance, kind="stable")[:3]
        if np.array_equal(found, chosen):
            break
        chosen = found
        near = min(8.0, max(4.5, scale)) + 1
    return best
