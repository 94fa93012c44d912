"""Which of two answers is better, and how sure one can be of a share.

A judge of answers has well-known faults (Zheng et al. 2023, section 3.3): it likes the first one
more, it likes its own, and it calls a tie a win. So each pair is shown twice, in both orders, and
counts as a win only if both verdicts agree; and the judge is judged first, on a model against
itself, where anything but one half is a fault of the judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ai_safety import wilson_interval
from labkit import exercise


class Answer(NamedTuple):
    """An answer, and the model that gave it, which is none of the judge's business."""

    text: str
    source: str


class Share(NamedTuple):
    """A share with its 95 % interval, all from 0 to 1."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, successes: float, count: int) -> Share:
        """A share with Wilson's interval (week 21), which keeps its width at 0 of n, where a safety
        report needs it most. Ties count one half. Raises ValueError for what is no share."""
        return cls(successes / max(1, count), *wilson_interval(successes, count))

    def __str__(self) -> str:
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:.1f} % (95 % interval {low:.1f} to {high:.1f})"


@exercise(minutes=10)
def prefer(reference: str, first: Answer, second: Answer) -> int:
    """1 when the first answer is better, -1 when the second is, 0 when neither is.

    Only the texts are compared with the reference: an answer that `agents.exact_match` calls right
    is better than one that it does not; between two right ones, or two wrong ones, the higher
    `agents.f1` with the reference is better; equal ones are a tie. Where an answer stands, and who
    gave it, has no influence.
    """
    from agents import exact_match, f1

    marks = [(exact_match(a.text, reference), f1(a.text, reference)) for a in (first, second)]
    return (marks[0] > marks[1]) - (marks[0] < marks[1])


@exercise(minutes=20)
def win_rate(verdicts: Sequence[tuple[int, int]]) -> Share:
    """How often A is better than B, from verdicts in both orders; ties count one half.

    Args:
        verdicts: for each pair of answers two verdicts, 1 (the one shown first is better), -1 (the
            one shown second) or 0 (a tie). The first verdict is with A shown first, the second one
            with B shown first. A wins the pair when both verdicts say A, B when both say B; any
            other pair is a tie.
    Returns:
        (wins + ties / 2) of all pairs, with the interval of `Share.of`.
    Raises:
        ValueError when there is no pair.
    """
    if not verdicts:
        raise ValueError("a win rate needs at least one pair")
    wins = sum(pair == (1, -1) for pair in verdicts)
    losses = sum(pair == (-1, 1) for pair in verdicts)
    return Share.of(wins + (len(verdicts) - wins - losses) / 2, len(verdicts))


def compare(
    references: Sequence[str], ours: Sequence[Answer], theirs: Sequence[Answer]
) -> list[tuple[int, int]]:
    """Verdicts of `prefer` on each pair, in both orders."""
    return [
        (prefer(reference, a, b), prefer(reference, b, a))
        for reference, a, b in zip(references, ours, theirs, strict=True)
    ]
