"""Measures of week 21: an interval of a share, agreement of two judges, the gap recovered.

A share of refused requests is a binomial share, often near 0 or 1, where the usual normal interval
has no width. Wilson's interval (Wilson 1927, "Probable inference") keeps its width there.
"""

import math
from collections.abc import Sequence

from labkit import exercise


@exercise(minutes=15)
def wilson_interval(successes: float, cases: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927).

    Its ends solve |share - p| = z sqrt(p (1 - p) / cases) for p, share = successes / cases: a
    quadratic equation in p. With w = z^2 / cases its solutions are
        (share + w/2 +- z sqrt(share (1 - share) / cases + w / (4 cases))) / (1 + w)
    and what rounding puts outside of 0 and 1 is set to 0 or 1.

    Args:
        successes: how many of the cases have the property, 0 to `cases`; a tie may
            count as one half.
        cases: how many were looked at, 1 or more.
        z: the normal quantile; 1.96 is for 95 %.

    Returns:
        The lower end and the upper end.
    Raises:
        ValueError: there are no cases, or `successes` is not within 0 and `cases`; its message says
            what was expected.
    """
    if cases < 1 or not 0 <= successes <= cases:
        raise ValueError(
            f"{successes} successes of {cases} cases: expected 0 <= successes <= cases, cases >= 1"
        )
    share, weight = successes / cases, z * z / cases
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / cases + weight / (4 * cases)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


@exercise(minutes=15)
def cohen_kappa(first: Sequence[object], second: Sequence[object]) -> float:
    """Agreement of two judges beyond chance (Cohen 1960): (observed - chance) / (1 - chance).

    Chance is the agreement of two independent judges who give each label as often as these do.
    It is 1 for judges that always agree, about 0 for one that does not look at the case. Labels may
    be anything that can be compared, and there may be more than two.

    Raises:
        ValueError: the two differ in length, are empty, or both give one and the same label only
            (chance is then 1 and kappa is not defined); its message is about labels.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} labels: expected equally many, 1 or more")
    cases = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / cases
    left, right = list(first), list(second)
    chance = sum(left.count(label) * right.count(label) for label in set(left)) / cases**2
    if chance == 1:
        raise ValueError("labels of one class only: kappa is not defined")
    return (observed - chance) / (1 - chance)


@exercise(minutes=5)
def gap_recovered(weak: float, weak_to_strong: float, ceiling: float) -> float:
    """Performance gap recovered (Burns et al. 2023, section 3).

    (weak_to_strong - weak) / (ceiling - weak): 0 is no better than the weak supervisor, 1 is as
    good as the strong model trained on true labels. It may lie outside 0 and 1.

    Args:
        weak: accuracy of the weak supervisor on test data.
        weak_to_strong: accuracy of the strong model that learned from the supervisor's labels.
        ceiling: accuracy of the strong model that learned from TRUE labels.

    Raises:
        ValueError: `ceiling` is not above `weak`: there is no gap to recover.
    """
    if ceiling <= weak:
        raise ValueError(f"ceiling {ceiling} is not above weak {weak}: there is no gap to recover")
    return (weak_to_strong - weak) / (ceiling - weak)
