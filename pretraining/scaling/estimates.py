"""From the losses of all trainings to the exponents of the laws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pretraining.powerlaw import Array, Law, fit, isoflop_minimum, straight_line


@dataclass(frozen=True)
class Runs:
    """The measurements: one entry for each finished training."""

    n: Array
    d: Array
    compute: Array
    """The budget of each; 6 N D differs from it by less than a step."""
    loss: Array

    @cached_property
    def budgets(self) -> list[float]:
        """The different budgets, smallest first."""
        return sorted(set(self.compute.tolist()))

    def only(self, chosen: Array) -> Runs:
        """The runs for which the mask is true."""
        return Runs(self.n[chosen], self.d[chosen], self.compute[chosen], self.loss[chosen])

    def minima(self) -> Iterator[tuple[float, float, float]]:
        """Budget, best N and its loss, for each budget whose parabola has its lowest point among
        the sizes that were trained; elsewhere it would be a guess.
        """
        for budget in self.budgets:
            here = self.only(self.compute == budget)
            try:
                best, loss = isoflop_minimum(here.n, here.loss)
            except ValueError:
                continue
            if here.n.min() <= best <= here.n.max():
                yield budget, best, loss


def estimates(runs: Runs, start: Law | None = None) -> tuple[Law, dict[str, float]]:
    """The law of N and D, and the numbers of `report.ROWS`: those of the parabolas only where two
    budgets have a minimum, and the law's best size only where it has one.
    """
    law = fit(runs.loss, runs.n, runs.d, start=start)
    (a, b), (alpha, beta) = law.scales, law.exponents
    middle_n, middle_d = (np.exp(np.log(v).mean()) for v in (runs.n, runs.d))
    found = {
        "alpha": alpha,
        "beta": beta,
        "irreducible": law.irreducible,
        "slope_n": float(Law(law.irreducible, (a,), (alpha,)).slopes(middle_n)[0]),
        "slope_d": float(Law(law.irreducible, (b,), (beta,)).slopes(middle_d)[0]),
    }
    if law.falls:
        found["n_opt_law"] = beta / (alpha + beta)
    minima = np.array(list(runs.minima()))
    if len(minima) >= 2:
        found["n_opt_parabola"] = straight_line(minima[:, 0], minima[:, 1])[1]
        found["slope_c"] = -straight_line(minima[:, 0], minima[:, 2])[1]
    return law, found


def extrapolation_error(runs: Runs) -> float:
    """Mean |predicted - measured| at the largest budget, in nats, of a law fitted without it."""
    largest = runs.compute == runs.budgets[-1]
    seen, unseen = runs.only(~largest), runs.only(largest)
    law = fit(seen.loss, seen.n, seen.d)
    return float(np.abs(law(unseen.n, unseen.d) - unseen.loss).mean())
