"""The paper's learning rate (Vaswani et al. 2017, section 5.3, equation 3): up, then down."""

from labkit import exercise


@exercise(minutes=10)
def noam(step: int, d_model: int, warmup: int) -> float:
    """Learning rate of step 0, 1, 2, ...; the paper counts n = 1, 2, 3, ...

        lr = d_model^-0.5 · min(n^-0.5, n · warmup^-1.5)

    It rises linearly for `warmup` steps, to (d_model · warmup)^-0.5, and then falls as 1/√n.
    (It is named after Noam Shazeer.)
    """
    n = step + 1
    return float(d_model**-0.5 * min(n**-0.5, n * warmup**-1.5))
