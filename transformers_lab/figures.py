"""Pictures of cross-attention: which source tokens have weight while each token is generated."""

from typing import TYPE_CHECKING

from torch import Tensor

from labkit.show.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def alignment_figure(
    maps: list[Tensor], sources: list[list[str]], targets: list[list[str]]
) -> "Figure":
    """One row for each sentence, one column for each layer of the decoder.

    Args:
        maps: of each sentence (layers, T, S): row t holds the weights used to generate token t.
        sources: its S tokens.
        targets: the T tokens generated.
    """
    layers = len(maps[0])
    heights = [0.8 + 0.14 * len(target) for target in targets]
    width = 0.9 + 0.15 * max(map(len, sources))
    figure = new_figure(max(2.4, width) * layers, sum(heights) + 0.6)
    grid = figure.add_gridspec(len(maps), layers, height_ratios=heights)
    for row, (weights, source, target) in enumerate(zip(maps, sources, targets, strict=True)):
        for layer in range(layers):
            axes = figure.add_subplot(grid[row, layer])
            axes.imshow(weights[layer].cpu().numpy(), cmap="viridis", vmin=0, aspect="auto")
            axes.set_xticks(range(len(source)), source, fontsize=6, rotation=90)
            axes.set_yticks(range(len(target)), target, fontsize=6)
            axes.tick_params(length=1, pad=1)
            if row == 0:
                axes.set_title(f"layer {layer + 1}", fontsize=8)
    figure.supxlabel("looked at", fontsize=8)
    figure.supylabel("written", fontsize=8)
    return figure
