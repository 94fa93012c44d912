"""Picture of model states."""

from __future__ import annotations

from typing import Any

from labkit.show.pictures import new_figure

PARTS = ("weights", "gradients", "optimizer")


def memory_bars(
    by_stage: dict[str, tuple[float, float, float]], measured: tuple[str, float]
) -> Any:
    """Bars of bytes for each parameter: weights, gradients, optimiser, for each stage by the
    formula; a line at what was measured.

    Args:
        by_stage: name -> bytes of the three parts. measured: name of its stage and its bytes.
    """
    figure = new_figure(6, 3.5)
    axes = figure.subplots()
    bottom = [0.0] * len(by_stage)
    for i, part in enumerate(PARTS):
        heights = [values[i] for values in by_stage.values()]
        axes.bar(list(by_stage), heights, bottom=bottom, label=part)
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    place = list(by_stage).index(measured[0])
    axes.plot([place - 0.4, place + 0.4], [measured[1]] * 2, "k--", label="measured in this run")
    axes.set_ylabel("bytes per parameter, in each process")
    axes.legend()
    return figure
