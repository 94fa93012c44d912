"""Pictures of attention: its weights, and its cost in memory and time."""

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attention.heads import Backend, attend
from attention.memory import measure
from labkit.show.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Costs = dict[str, list[tuple[int, int, float]]]
"""For each backend: length, peak bytes, and seconds of a forward and backward pass."""


def map_figure(maps: Tensor, labels: list[str], answers: int) -> "Figure":
    """Weights of every head while the answers are generated: rows are layers, columns heads.

    Args:
        maps: (layers, H, T, T), of one sequence.
        labels: its T tokens, and the token after them.
        answers: how many of the last queries to show, each labelled `reads → writes`.
    """
    layers, heads, length, _ = maps.shape
    weights = maps[:, :, -answers:].cpu().numpy()
    cell = max(2.2, 0.14 * length)
    figure = new_figure(cell * heads + 0.8, cell * 0.75 * layers + 0.6)
    rows = [f"{labels[i]} → {labels[i + 1]}" for i in range(length - answers, length)]
    for layer in range(layers):
        for head in range(heads):
            axes = figure.add_subplot(layers, heads, layer * heads + head + 1)
            axes.imshow(weights[layer, head], cmap="viridis", vmin=0, aspect="auto")
            axes.set_xticks(range(length), labels[:length], fontsize=5, rotation=90)
            axes.set_yticks(range(answers), rows, fontsize=5)
            axes.tick_params(length=1, pad=1)
            axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=7)
    figure.supxlabel("attended to", fontsize=8)
    figure.supylabel("reads → writes", fontsize=8)
    return figure


def costs(lengths: list[int], device: torch.device, dim: int = 32) -> Costs:
    """Memory and time of naive and tiled attention, one head, forward and backward."""
    found: Costs = {"naive": [], "tiled": []}
    for length in lengths:
        generator = torch.Generator().manual_seed(length)
        q, k, v = (torch.randn(1, 1, length, dim, generator=generator) for _ in range(3))
        for name, row in found.items():
            backend: Backend = "naive" if name == "naive" else "tiled"
            row.append((length, *_cost(backend, q.to(device), k.to(device), v.to(device))))
    return found


def _cost(backend: Backend, q: Tensor, k: Tensor, v: Tensor) -> tuple[int, float]:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, backend=backend)

    peak = measure(run, q, k, v).peak
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    begun = time.perf_counter()
    run(*leaves).sum().backward()
    if q.is_cuda:
        torch.cuda.synchronize()
    return peak, time.perf_counter() - begun


def cost_figure(found: Costs) -> "Figure":
    """Memory and time against the length, both axes logarithmic; dashed: slopes for comparison."""
    figure = new_figure(9, 4)
    panels = [
        (figure.add_subplot(1, 2, 1), "peak memory (MB)", 1, 1e-6),
        (figure.add_subplot(1, 2, 2), "seconds, forward and backward", 2, 1.0),
    ]
    for axes, title, column, unit in panels:
        for name, rows in found.items():
            lengths, values = [r[0] for r in rows], [unit * r[column] for r in rows]
            axes.loglog(lengths, values, marker="o", label=name)
            if (name, column) == ("tiled", 2):
                continue  # the time of both is quadratic: one guide is enough
            power = 1 if name == "tiled" else 2
            guide = [values[-1] * (n / lengths[-1]) ** power for n in lengths]
            axes.loglog(lengths, guide, "--", color="grey", linewidth=0.8)
            middle = len(lengths) // 2
            axes.annotate(
                f"~ T^{power}", (lengths[middle], guide[middle]), (4, -9),
                textcoords="offset points", fontsize=7, color="grey",
            )  # fmt: skip
        axes.set_xticks(lengths, [str(n) for n in lengths], fontsize=7)
        axes.minorticks_off()
        axes.set_xlabel("length T")
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
