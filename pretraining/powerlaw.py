"""Scaling laws: loss against parameters N, tokens D and compute C, fitted by hand.

    L(x) = (x_c / x)^α                      Kaplan et al. 2020, equations 1.1 to 1.3
    L(x) = E + A / x^α                      the same, with an irreducible loss E
    L(N, D) = E + A / N^α + B / D^β         Hoffmann et al. 2022, equation 2

A law is fitted to log L, by Huber's loss, as in Hoffmann et al., section 3.3: exponents are slopes
on logarithmic axes, and one failed training must not change them much. With C = 6 N D the best N
for a budget has a closed form (`compute_optimal`); the same optimum can be read, without any law,
from the lowest point of losses at equal compute (`isoflop_minimum`, their approach 2).

Limits of a fitted exponent: it holds for one data set, one recipe and one range. Losses of models
between 10^4 and 10^6 parameters are far from E, so errors in E and in the exponents compensate each
other, and an exponent of tiny models does not measure that of large ones. The intervals here cover
the noise of the runs only, not a wrong form of the law.

Letters: n runs, k variables of a law (1 or 2), p parameters of a fit.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit import exercise

Array = NDArray[np.float64]

DELTA = 1e-3
"""Where Huber's loss turns from squares to absolute values: Hoffmann et al. 2022, section 3.3."""

ROUNDING = 1e-10
"""Share of a loss below which a difference is only rounding."""

FLOPS_PER_WEIGHT = 6
"""Per weight and token: 2 forward and 4 backward (Kaplan et al. 2020, section 2.1)."""

PUBLISHED = {"alpha_N": 0.076, "alpha_D": 0.095, "alpha_C": 0.050, "kaplan_N_opt": 0.73,
             "alpha": 0.34, "beta": 0.28, "chinchilla_N_opt": 0.50}  # fmt: skip
"""Kaplan et al. 2020: equations 1.1 to 1.3 (α_C is that of the best use of compute), and N_opt from
section 1.2; N counts the weights outside the embeddings. Hoffmann et al. 2022: appendix D.3, and
table 2, approach 1; N counts all weights. Pearce and Song 2024 trace most of the difference
between 0.73 and 0.50 to this count; Besiroglu et al. 2024 find that the fit behind α and β had not
converged.
"""


@dataclass(frozen=True)
class Law:
    """L(x) = E + Σ_k A_k / x_k^α_k; call it with one array for each variable."""

    irreducible: float
    """E, in nats per token."""
    scales: tuple[float, ...]
    """A_k."""
    exponents: tuple[float, ...]
    """α_k."""

    def __call__(self, *x: ArrayLike) -> Array:
        """Losses at x_1, ..., x_k, arrays that broadcast against each other."""
        loss = np.asarray(self.irreducible)
        for value, scale, exponent in zip(x, self.scales, self.exponents, strict=True):
            loss = loss + scale * np.asarray(value, float) ** -exponent
        return loss

    @property
    def falls(self) -> bool:
        """Whether the loss falls with every variable. In few runs noise can reverse one."""
        return min(self.exponents) > 0

    def slopes(self, *x: ArrayLike) -> list[Array]:
        """-∂ log L / ∂ log x_k at x: what a straight line on logarithmic axes takes for α_k.

        Smaller than α_k wherever E or another term has a share of the loss.
        """
        terms = zip(x, self.scales, self.exponents, strict=True)
        loss = self(*x)
        return [a * s * np.asarray(v, float) ** -a / loss for v, s, a in terms]


@exercise(minutes=10)
def huber(residual: Array, delta: float = DELTA) -> Array:
    """Huber's loss of each residual r: r²/2 where |r| <= delta, else delta (|r| - delta/2).

    Both the value and the slope are continuous at |r| = delta.
    """
    size = np.abs(residual)
    return np.where(size <= delta, residual**2 / 2, delta * (size - delta / 2))


@exercise(minutes=25)
def power_law(theta: Array, log_x: Array) -> tuple[Array, Array]:
    """The logarithm of a law and its gradient (Hoffmann et al. 2022, section 3.3).

        log L = logsumexp(e, a_1 - α_1 log x_1, ..., a_k - α_k log x_k)

    with E = exp(e) and A = exp(a): all terms are positive for any theta. The gradient of a
    logsumexp is the softmax of its arguments, each term's share in the loss.

    Args:
        theta: (1 + 2k,), in the order e, a_1, ..., a_k, α_1, ..., α_k.
        log_x: (n, k).

    Returns:
        log L (n,), and ∂ log L / ∂ theta (n, 1 + 2k).
    """
    k = log_x.shape[1]
    e, a, exponents = theta[0], theta[1 : 1 + k], theta[1 + k :]
    terms = np.column_stack([np.full(len(log_x), e), a - exponents * log_x])  # (n, 1 + k)
    highest = terms.max(axis=1, keepdims=True)  # so that exp cannot overflow
    total = np.exp(terms - highest).sum(axis=1, keepdims=True)
    share = np.exp(terms - highest) / total
    log_loss = (highest + np.log(total))[:, 0]
    return log_loss, np.column_stack([share, -share[:, 1:] * log_x])


@exercise(minutes=30)
def descend(
    theta: Array, log_x: Array, log_loss: Array, delta: float = DELTA, steps: int = 400
) -> tuple[Array, float]:
    """Lower Σ huber(power_law(theta) - log_loss) from `theta` by damped Gauss-Newton steps.

    Levenberg and Marquardt's step with the weights w = min(1, delta / |r|) that make a squared loss
    touch Huber's at r (iteratively reweighted least squares):

        (JᵀWJ + damping diag(JᵀWJ)) step = -JᵀW r

    A step that lowers the sum is taken and damping falls; any other step is rejected and damping
    rises. It ends when a step gains less than 1e-10 *of the sum*: the sum itself is tiny, so an
    absolute tolerance would stop too early. It also ends when damping has risen so far (1e12, say)
    that steps have no effect. The first damping and the factors of its changes are yours to choose.

    A parameter without influence, such as the e of a term that has underflowed, has a column of 0
    in J: add 1e-14 to the diagonal, so that the system can be solved and this parameter stays.

    Args:
        theta: the start; not changed.
        log_x: (n, k), as in `power_law`.
        log_loss: (n,).
        steps: steps tried at most, whether taken or not; 0 returns theta as it is.
    Returns:
        theta, and the sum there.
    """
    damping = 1e-3
    prediction, jacobian = power_law(theta, log_x)
    residual = prediction - log_loss
    total = float(huber(residual, delta).sum())
    for _ in range(steps):
        weight = delta / np.maximum(np.abs(residual), delta)
        normal = jacobian.T @ (weight[:, None] * jacobian)
        gradient = jacobian.T @ (weight * residual)
        damped = normal + np.diag(damping * normal.diagonal() + 1e-14)
        trial = theta - np.linalg.solve(damped, gradient)
        prediction, trial_jacobian = power_law(trial, log_x)
        lower = float(huber(prediction - log_loss, delta).sum())
        if lower < total:
            done = total - lower <= 1e-10 * total
            theta, jacobian, residual, total = trial, trial_jacobian, prediction - log_loss, lower
            damping = max(damping / 3, 1e-12)
            if done:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
    return theta, total


def fit(loss: ArrayLike, *x: ArrayLike, delta: float = DELTA, start: Law | None = None) -> Law:
    """The law of k variables nearest to losses (n,) at x_1, ..., x_k (n,) each.

    The sum has several local minima, so it is minimised from a grid of starts (or from `start`
    alone) and the lowest result is taken. Raises ValueError with fewer runs than parameters, for
    losses or variables that are not positive and finite, and when their lengths differ.
    """
    logs = [np.asarray(v, float) for v in (loss, *x)]
    if len({v.shape for v in logs}) > 1:
        raise ValueError(f"losses and variables must be of one length: {[v.shape for v in logs]}")
    if not all(((v > 0) & np.isfinite(v)).all() for v in logs):
        raise ValueError("losses and variables of a power law must be positive and finite")
    if len(logs[0]) < 1 + 2 * len(x):
        raise ValueError(
            f"a law of {len(x)} variables has {1 + 2 * len(x)} parameters; {len(logs[0])} runs "
            "cannot fix them"
        )
    log_loss, log_x = np.log(logs[0]), np.log(np.column_stack(logs[1:]))
    middle = log_x.mean(axis=0)  # centred, A and α hardly depend on each other
    begin = [_theta(start, middle)] if start else _starts(log_loss, log_x.shape[1])
    ends = [descend(theta, log_x - middle, log_loss, delta) for theta in begin]
    theta = min(ends, key=lambda end: end[1])[0]
    a, exponents = np.split(theta[1:], 2)
    scales = np.exp(a + exponents * middle)
    return Law(float(np.exp(theta[0])), tuple(scales.tolist()), tuple(exponents.tolist()))


def _starts(log_loss: Array, k: int) -> list[Array]:
    """Starting exponents and shares of E; the other terms share the rest of the mean loss."""
    level, starts = float(np.exp(log_loss.mean())), []
    for share, *exponents in product((0.2, 0.5, 0.9), *[(0.1, 0.3, 0.8)] * k):
        floor = share * float(np.exp(log_loss.min()))
        a = np.full(k, np.log((level - floor) / k))
        starts.append(np.concatenate([[np.log(floor)], a, exponents]))
    return starts


def _theta(law: Law, middle: Array) -> Array:
    """A law's parameters as `power_law` takes them, for variables centred at `middle`."""
    exponents = np.asarray(law.exponents)
    a = np.log(law.scales) - exponents * middle
    return np.concatenate([[np.log(max(law.irreducible, 1e-12))], a, exponents])


@exercise(minutes=10)
def straight_line(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """The factor c and the slope s of y = c x^s, by least squares on log y, in float64.

    Kaplan's L(x) = (x_c / x)^α is s = -α, c = x_c^α; N_opt(C) is such a line too.
    """
    log_x, log_y = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    centred = log_x - log_x.mean()
    slope = float(centred @ log_y / (centred @ centred))
    return float(np.exp(log_y.mean() - slope * log_x.mean())), slope


@exercise(minutes=20)
def compute_optimal(law: Law, compute: ArrayLike) -> tuple[Array, Array]:
    """N and D that make L(N, D) least under 6 N D = C (Hoffmann et al. 2022, equation 4).

        N_opt = G (C/6)^(β/(α+β))     D_opt = (C/6)^(α/(α+β)) / G     G = (αA / βB)^(1/(α+β))

    Args:
        law: of the two variables N and D, in this order.
        compute: C in FLOPs, any shape.

    Returns:
        N_opt and D_opt, of the shape of `compute`.
    Raises:
        ValueError for a law that does not fall with both (`law.falls`): it has no best size.
    """
    if not law.falls:
        raise ValueError(f"exponents {law.exponents}: a loss that rises with size or data")
    (a_scale, b_scale), (alpha, beta) = law.scales, law.exponents
    product_nd = np.asarray(compute, float) / FLOPS_PER_WEIGHT
    g = (alpha * a_scale / (beta * b_scale)) ** (1 / (alpha + beta))
    best = g * product_nd ** (beta / (alpha + beta))
    return best, product_nd / best


@exercise(minutes=15)
def isoflop_minimum(n: ArrayLike, loss: ArrayLike) -> tuple[float, float]:
    """The N of least loss at one budget, and that loss, from a parabola in log N.

    Hoffmann et al. 2022, section 3.2 (approach 2): loss = c_0 + c_1 log N + c_2 (log N)², by least
    squares in float64.

    Args:
        n: sizes (m,), three or more different ones, in any order.
        loss: (m,), in nats.
    Raises:
        ValueError with fewer than three different sizes, and where the parabola has no lowest
        point: it opens downwards, or is a straight line. c_2 of a line is 0 only up to rounding, so
        a minimum needs c_2 (log largest - log smallest)² > ROUNDING · max |loss|.
    """
    log_n, values = np.log(np.asarray(n, float)), np.asarray(loss, float)
    if len(np.unique(log_n)) < 3:
        raise ValueError("a parabola needs three sizes or more")
    middle = log_n.mean()
    powers = np.stack([(log_n - middle) ** i for i in range(3)], axis=1)
    c0, c1, c2 = np.linalg.lstsq(powers, values, rcond=None)[0]
    if c2 * np.ptp(log_n) ** 2 <= ROUNDING * np.abs(values).max():
        raise ValueError("losses at equal compute have no minimum between the smallest and largest")
    return float(np.exp(middle - c1 / (2 * c2))), float(c0 - c1**2 / (4 * c2))


def resample(
    loss: ArrayLike, fitted: ArrayLike, parameters: int, draws: int, seed: int = 0
) -> Array:
    """Losses (draws, n) that other runs might have given: the fit, times resampled residuals.

    A residual bootstrap (Efron and Tibshirani 1993, chapter 9) on log L: the design of sizes and
    budgets stays complete, unlike when runs are drawn with replacement. Residuals of a fit with
    p parameters are too small by √(1 - p/n), and are scaled up by as much. Raises ValueError when
    losses and fit have different lengths.
    """
    if np.shape(loss) != np.shape(fitted):
        raise ValueError(f"{np.shape(loss)} losses, and {np.shape(fitted)} of the fit")
    residual = np.log(np.asarray(loss, float)) - np.log(np.asarray(fitted, float))
    residual = residual * np.sqrt(len(residual) / max(1, len(residual) - parameters))
    drawn = np.random.default_rng(seed).choice(residual - residual.mean(), (draws, len(residual)))
    return np.asarray(fitted, float) * np.exp(drawn)


def interval(values: ArrayLike, level: float = 0.9) -> tuple[float, float]:
    """The percentiles that leave (1 - level) / 2 of the values out on each side."""
    low, high = np.quantile(np.asarray(values, float), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
