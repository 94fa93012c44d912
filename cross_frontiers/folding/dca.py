"""Contacts from an alignment without learning: direct coupling analysis (DCA).

Two residues that touch must fit each other, so their columns vary together. But A also varies with
C if A touches B and B touches C. A model of the whole alignment tells direct from indirect: the
couplings of the Gaussian with the alignment's covariance are minus its inverse (Morcos et al.
2011, "mean-field" DCA).

S rows, L columns, q states, of which the last, the gap, is the reference.
"""

from __future__ import annotations

import numpy as np

from cross_frontiers.folding.pdb import TOKENS
from labkit import exercise

IDENTITY = 0.8
"""Rows that agree in at least this share of their columns count as one."""
PSEUDOCOUNT = 0.5
"""Share of the frequencies that is uniform."""


@exercise(minutes=15)
def sequence_weights(msa: np.ndarray, identity: float = IDENTITY) -> np.ndarray:
    """The weight of each row of an alignment (S, L), float64 (S,): 1 / n, where n counts the rows,
    the row itself among them, that agree with it in at least the share `identity` of the columns
    (Morcos et al. 2011, supplement, equation 3).
    """
    alike = np.array([(msa == row).mean(axis=1) >= identity for row in msa])
    return 1 / alike.sum(axis=1)


def covariance(
    msa: np.ndarray, states: int = TOKENS, pseudocount: float = PSEUDOCOUNT
) -> np.ndarray:
    """f_ij(a, b) - f_i(a) f_j(b) of all columns and all states but the last: (L q', L q') with
    q' = q - 1, the states of a column side by side.

    The frequencies are weighted by `sequence_weights` and mixed with uniform ones (equation 2 of
    the supplement): f_i(a) with 1/q, f_ij(a, b) with 1/q², f_ii(a, b) with 1/q where a = b.
    """
    length, kept = msa.shape[1], states - 1
    weight = sequence_weights(msa)
    one_hot = np.eye(states)[msa][:, :, :kept].reshape(len(msa), length * kept)
    share = weight / weight.sum()
    single = (1 - pseudocount) * share @ one_hot + pseudocount / states
    pair = (1 - pseudocount) * (one_hot * share[:, None]).T @ one_hot + pseudocount / states**2
    same = np.kron(np.eye(length, dtype=bool), np.ones((kept, kept), dtype=bool))
    pair = np.where(same, np.diag(single), pair)
    return pair - np.outer(single, single)


@exercise(minutes=25)
def coupling_norms(covariance: np.ndarray, states: int) -> np.ndarray:
    """Strengths of the couplings between L columns, (L, L), diagonal 0.

    `covariance` is (L q', L q') with q' = states - 1: the states of a column stand side by side,
    the reference state is left out. The couplings are minus its inverse, e_ij(a, b). With the
    reference state back, as a row and a column of zeros, each (q, q) block is brought to the gauge
    of zero sums by taking off the means of its rows and of its columns and adding the mean of all
    (Ekeberg et al. 2013, equation 23). The strength of i and j is the Frobenius norm of that block.
    """
    kept = states - 1
    length = len(covariance) // kept
    blocks = -np.linalg.inv(covariance).reshape(length, kept, length, kept).transpose(0, 2, 1, 3)
    blocks = np.pad(blocks, ((0, 0), (0, 0), (0, 1), (0, 1)))
    blocks = blocks - blocks.mean(axis=2, keepdims=True)
    blocks = blocks - blocks.mean(axis=3, keepdims=True)
    norms = np.sqrt((blocks**2).sum(axis=(2, 3)))
    np.fill_diagonal(norms, 0)
    return norms


@exercise(minutes=15)
def apc(scores: np.ndarray) -> np.ndarray:
    """Scores (L, L), symmetric, less what their columns have in common with all others, diagonal 0.

    The average product correction: F_ij - F_i F_j / F, where F_i is the mean over the L - 1 other
    columns and F the mean over all pairs of two different columns (Dunn et al. 2008, equation 4).
    The diagonal is not looked at, and the argument is not changed. Scores that are all 0 stay 0.
    """
    length = len(scores)
    other = ~np.eye(length, dtype=bool)
    mean = np.where(other, scores, 0).sum(axis=1) / (length - 1)
    common = np.outer(mean, mean) / mean.mean() if mean.any() else 0
    return np.where(other, scores - common, 0)


def mean_field(msa: np.ndarray, states: int = TOKENS) -> np.ndarray:
    """Contact scores (L, L) of an alignment (S, L) by mean-field DCA; higher is likelier."""
    return apc(coupling_norms(covariance(msa, states), states))


def mutual_information(msa: np.ndarray, states: int = TOKENS) -> np.ndarray:
    """Contact scores (L, L) by the mutual information of two columns, corrected by `apc`: the score
    that cannot tell direct from indirect.
    """
    length = msa.shape[1]
    share = sequence_weights(msa)
    share = share / share.sum()
    one_hot = np.eye(states)[msa].reshape(len(msa), length * states)
    pair = ((one_hot * share[:, None]).T @ one_hot).reshape(length, states, length, states)
    single = (share @ one_hot).reshape(length, states)
    alone = single[:, :, None, None] * single[None, None]
    ratio = np.divide(pair, alone, out=np.ones_like(pair), where=pair > 0)
    return apc((pair * np.log(ratio)).sum(axis=(1, 3)))
