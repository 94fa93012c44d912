"""When to look at something that costs time: early, and then at intervals that double.

Looks after 30, 60, 120, ... seconds of training show a run's beginning at once, and their number
grows with the logarithm of its length only.
"""

from __future__ import annotations


class Doubling:
    """Due after `first` seconds, 2 first, 4 first, ...; looks due before `begun` are skipped."""

    def __init__(self, first: float, begun: float = 0.0) -> None:
        """`begun`: seconds of training that a resumed run has behind it."""
        self.next = first
        self.due(begun)

    def due(self, seconds: float) -> bool:
        """Whether a look is due after so many seconds; true once for each."""
        if seconds < self.next:
            return False
        while self.next <= seconds:
            self.next *= 2
        return True
