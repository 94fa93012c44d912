"""CMA-ES: a search without gradients that learns the shape of its own random steps.

Hansen 2016, The CMA Evolution Strategy: A Tutorial, arXiv:1604.00772; the numbers are its
equations, the constants those of its table 1, negative weights included. It minimises.

    x_i = m + sigma y_i,   y_i ~ N(0, C)                                      eq. 5
    m   <- m + sigma <y>,   <y> = sum of w_i y_i over the better half         `recombined`, eq. 6
    p   <- (1 - c) p + sqrt(c (2 - c) mu_eff) <y>                             `evolution_path`
    sigma <- sigma exp(c_s / d_s (|p_s| / E|N(0, I)| - 1))                    eq. 44
    C   <- (1 + c_1 delta - c_1 - c_mu sum w) C + c_1 p_c p_c^T
           + c_mu sum_i w_i y_i y_i^T                                         `adapted`, eq. 47

Letters: n dimensions, L candidates (lambda), mu of them parents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit import exercise


@dataclass(frozen=True)
class Constants:
    """Table 1 of the tutorial."""

    weights: np.ndarray  # (L,), the first mu of them add up to 1, the others are 0 or less
    parents: int
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float

    @classmethod
    def of(cls, n: int, population: int) -> Constants:
        """The defaults for n dimensions and L candidates."""
        raw = math.log((population + 1) / 2) - np.log(np.arange(1, population + 1))
        parents = population // 2
        better, worse = raw[:parents], raw[parents:]
        mu_eff = better.sum() ** 2 / (better**2).sum()
        worse_eff = worse.sum() ** 2 / (worse**2).sum()
        c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
        c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)
        rank_mu = 2 * (0.25 + mu_eff - 2 + 1 / mu_eff) / ((n + 2) ** 2 + mu_eff)
        c_mu = min(1 - c_1, rank_mu)
        # Three bounds on the sum of the negative weights: eq. 50 to 52.
        limit = min(1 + c_1 / c_mu, 1 + 2 * worse_eff / (mu_eff + 2), (1 - c_1 - c_mu) / (n * c_mu))
        weights = np.concatenate([better / better.sum(), limit * worse / -worse.sum()])
        return cls(
            weights=weights,
            parents=parents,
            mu_eff=float(mu_eff),
            c_sigma=float(c_sigma),
            d_sigma=float(1 + 2 * max(0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma),
            c_c=float((4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)),
            c_1=float(c_1),
            c_mu=float(c_mu),
        )


@exercise(minutes=10)
def recombined(steps: np.ndarray, cost: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean step <y>: the weighted sum of the best steps (equation 41).

    The candidate with the lowest cost gets weights[0], the next one weights[1], and so on for as
    many as there are positive weights; the others count for nothing here.

    Args:
        steps: y_i, (L, n), in the order in which they were drawn.
        cost: (L,), lower is better; in the same order.
        weights: (L,), falling, the positive ones first. No argument is changed.
    Returns:
        (n,).
    """
    order = np.argsort(cost, kind="stable")
    return np.maximum(weights, 0) @ steps[order]


@exercise(minutes=10)
def evolution_path(path: np.ndarray, step: np.ndarray, c: float, mu_eff: float) -> np.ndarray:
    """An evolution path: the sum of past mean steps, older ones forgotten (equations 43 and 45).

        p <- (1 - c) p + sqrt(c (2 - c) mu_eff) step

    If `step` has covariance C / mu_eff, as it has when selection is random, and p has covariance C,
    then the new p has covariance C.

    Args:
        path: p, (n,). step: (n,). No argument is changed.
        c: from 0 to 1, the share that is forgotten. mu_eff: 1 or more.
    Returns:
        The new p, (n,).
    """
    return (1 - c) * path + math.sqrt(c * (2 - c) * mu_eff) * step


@exercise(minutes=25)
def adapted(
    covariance: np.ndarray,
    path: np.ndarray,
    steps: np.ndarray,
    lengths: np.ndarray,
    constants: Constants,
    stalled: bool,
) -> np.ndarray:
    """The new covariance matrix: rank-one and rank-mu update (equations 46 and 47).

        C <- (1 + c_1 delta - c_1 - c_mu sum_j w_j) C + c_1 p p^T + c_mu sum_i w'_i y_i y_i^T

    The sums are over all L steps. w'_i is w_i where w_i >= 0, and w_i n / |C^(-1/2) y_i|^2
    where it is negative, so that the matrix stays positive definite. delta is c_c (2 - c_c) where
    the path was `stalled` (h_sigma = 0), which makes up for what p lost, and else 0.

    Args:
        covariance: C, (n, n). path: p_c, (n,), the new one.
        steps: y_i, (L, n), the best first. lengths: |C^(-1/2) y_i|, (L,), in the same order, > 0.
        constants: weights (L,), c_1, c_mu and c_c. No argument is changed.
    Returns:
        (n, n), symmetric.
    """
    weights, c_1, c_mu = constants.weights, constants.c_1, constants.c_mu
    n = len(path)
    scaled = np.where(weights >= 0, weights, weights * n / lengths**2)
    delta = constants.c_c * (2 - constants.c_c) if stalled else 0.0
    kept = 1 + c_1 * delta - c_1 - c_mu * weights.sum()
    rank_one = np.outer(path, path)
    rank_mu = (scaled * steps.T) @ steps
    return kept * covariance + c_1 * rank_one + c_mu * rank_mu


class CMAES:
    """The search. `ask` draws candidates, `tell` learns from their costs."""

    def __init__(self, mean: np.ndarray, sigma: float, population: int, seed: int) -> None:
        """`mean` (n,) is the first mean; steps begin with covariance sigma^2 I."""
        n = len(mean)
        self.constants = Constants.of(n, population)
        self.population = population
        self.mean, self.sigma = np.array(mean, float), float(sigma)
        self.covariance = np.eye(n)
        self.path_sigma, self.path_c = np.zeros((2, n))
        self.generation = 0
        self.rng = np.random.default_rng((seed, 1604))
        self.steps = np.zeros((population, n))
        self._decompose()

    def _decompose(self) -> None:
        """C = B D^2 B^T, and C^(-1/2) = B D^-1 B^T."""
        values, self._basis = np.linalg.eigh(self.covariance)
        self._axes = np.sqrt(values.clip(1e-20))

    def _whitened(self, steps: np.ndarray) -> np.ndarray:
        """C^(-1/2) y for each row y of (..., n)."""
        return (steps @ self._basis / self._axes) @ self._basis.T

    def ask(self) -> np.ndarray:
        """Candidates (L, n)."""
        normal = self.rng.standard_normal(self.steps.shape)
        self.steps = (normal * self._axes) @ self._basis.T
        return self.mean + self.sigma * self.steps

    def tell(self, cost: np.ndarray) -> None:
        """Learn from the costs (L,) of the candidates that `ask` returned last.

        Raises ValueError when one is not a number: nothing could be said of its rank.
        """
        if np.isnan(cost).any():
            raise ValueError("the cost of a candidate is NaN")
        constants, n = self.constants, len(self.mean)
        self.generation += 1
        step = recombined(self.steps, cost, constants.weights)
        self.mean = self.mean + self.sigma * step
        whitened = self._whitened(step)
        self.path_sigma = evolution_path(
            self.path_sigma, whitened, constants.c_sigma, constants.mu_eff
        )
        expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # E|N(0, I)|
        length = np.linalg.norm(self.path_sigma)
        warm = math.sqrt(1 - (1 - constants.c_sigma) ** (2 * self.generation))
        stalled = bool(length / warm >= (1.4 + 2 / (n + 1)) * expected)
        self.path_c = evolution_path(
            self.path_c, step * (not stalled), constants.c_c, constants.mu_eff
        )
        best_first = self.steps[np.argsort(cost, kind="stable")]
        lengths = np.linalg.norm(self._whitened(best_first), axis=1)
        self.covariance = adapted(
            self.covariance, self.path_c, best_first, lengths, constants, stalled
        )
        self.sigma *= math.exp(constants.c_sigma / constants.d_sigma * (length / expected - 1))
        self._decompose()

    def state_dict(self) -> dict[str, Any]:
        """All that later generations depend on."""
        arrays = ("mean", "covariance", "path_sigma", "path_c", "steps")
        return {
            **{name: getattr(self, name).copy() for name in arrays},
            "sigma": self.sigma,
            "generation": self.generation,
            "generator": self.rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("mean", "covariance", "path_sigma", "path_c", "steps"):
            setattr(self, name, state[name].copy())
        self.sigma, self.generation = state["sigma"], state["generation"]
        self.rng.bit_generator.state = state["generator"]
        self._decompose()
