"""Pictures of a run, from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labkit.show.pictures import new_figure


def shots(accuracy: Mapping[str, Sequence[float]], guess: float) -> Any:
    """Accuracy in % against the number of examples before the question, a line for each kind."""
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    for name, values in accuracy.items():
        axes.plot(range(len(values)), values, marker="o", label=name.replace("_", "-"))
    axes.axhline(guess, color="0.5", ls="--", label="one of 8 at random")
    axes.set(xlabel="examples before the answer", ylabel="right answers (%)", ylim=(0, 102))
    axes.set_xticks(range(max(map(len, accuracy.values()))))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
