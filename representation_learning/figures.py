"""Pictures of a representation: the views, the map, the neighbours, the reconstructions."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import Run
from labkit.learning.modes import evaluating
from representation_learning.objectives import Autoencoder, Objective, SimCLR, Supervised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Labelled = tuple[Tensor, Tensor, Tensor]
"""Images uint8 (N, 3, H, W), their representations float (N, d), their classes int64 (N,)."""


def draw(
    run: Run,
    classes: tuple[str, ...],
    model: Objective,
    trained: bool,
    train: Labelled,
    test: Labelled,
) -> None:
    """Write all pictures of a run into samples/; of an untrained model those without training."""
    x, (x_test, h_test, y_test) = train[0], test
    if trained:
        run.plot("training", "train/loss")
    if trained and isinstance(model, SimCLR):
        run.plot("shape", "train/alignment", "train/uniformity")
    if trained and isinstance(model, SimCLR | Supervised):
        views = [model.augment(x[:10]) for _ in range(4)]
        run.grid("views", torch.cat([x[:10].float() / 255, *views]), columns=10)
    if isinstance(model, Autoencoder):
        with evaluating(model):
            out = model.decoder(model.encoder(x_test[:16].float() / 255))
        pairs = torch.cat([torch.cat([x_test[:8] / 255, out[:8]]),
                           torch.cat([x_test[8:16] / 255, out[8:]])])  # fmt: skip
        run.grid("reconstructions", pairs, columns=8)
    images, titles = neighbours(train, test, classes)
    run.grid("neighbours", images, columns=8, titles=titles)
    run.figure("map", tsne_map(h_test[:1000], y_test[:1000], classes, run.seed))


def neighbours(
    train: Labelled, test: Labelled, classes: tuple[str, ...], queries: int = 8, k: int = 7
) -> tuple[Tensor, list[str]]:
    """Rows of a test image and its k nearest training images: (queries (k + 1), 3, H, W), names."""
    (x, h, y), (x_test, h_test, y_test) = train, test
    mean = h.mean(dim=0)
    similarity = F.normalize(h_test[:queries] - mean) @ F.normalize(h - mean).T
    index = similarity.topk(k).indices  # (queries, k)
    images = torch.cat([x_test[:queries, None], x[index]], dim=1).flatten(0, 1)
    titles = []
    for truth, row in zip(y_test[:queries].tolist(), y[index].tolist(), strict=True):
        titles += [f"{classes[truth]} →", *(classes[c] for c in row)]
    return images, titles


def tsne_map(h: Tensor, y: Tensor, classes: tuple[str, ...], seed: int) -> "Figure":
    """Test images in the plane by t-SNE (van der Maaten & Hinton 2008), coloured by class.

    Clusters have a meaning, distances between clusters have none: t-SNE keeps only neighbourhoods.
    """
    from sklearn.manifold import TSNE

    from labkit.show.pictures import new_figure

    tsne = TSNE(
        init="pca",
        random_state=seed,
        perplexity=min(30, len(h) // 4),
        max_iter=250 + min(750, 3 * len(h) // 4),  # few points converge sooner
    )
    points = tsne.fit_transform(F.normalize(h - h.mean(dim=0), dim=1).cpu().numpy())
    figure = new_figure(7.2, 5.4)
    axes = figure.add_subplot()
    labels = y.cpu().numpy()
    for c, name in enumerate(classes):
        chosen = points[labels == c]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=9, label=name, color=f"C{c}")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.set_title("test images, t-SNE of the representation")
    return figure
