"""Measures of the three kinds of model: of a density, of a picture energy, of a representation."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ebm_jepa import data as strangers
from ebm_jepa import densities, ood, regularisers
from ebm_jepa.views import ViewEncoder
from ebm_jepa.vit import Encoder
from labkit import paths
from labkit.learning.modes import evaluating
from labkit.records import store
from representation_learning import knn_accuracy, linear_probe, represent

POINTS = 20_000
"""Points of the true density at which a learned one is compared with it."""
RADII = (0.0, 0.05, 0.1, 0.15, 0.2)
"""Radii of the attacks, as shares of the grey scale."""
ATTACKED = 500
"""Test pictures that are attacked."""


def density_error(
    energy: nn.Module, density: densities.Density, points: int, seed: int, device: torch.device
) -> dict[str, float]:
    """How far a learned log-density is from the true one, in nats.

    `log_density_error` is the mean of |log p_learned(x) - log p(x)| over points x of the true
    density, both normalised, the learned one by quadrature over points x points. `kl` is the mean
    of log p - log p_learned there: the Kullback-Leibler divergence, 0 or more up to chance.
    """
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1))  # no step uses this seed
    x = density.sample(POINTS, generator).to(device)
    with evaluating(energy):
        log_z = densities.log_z(energy, points, device).double()
        learned = -energy(x).double() - log_z
    difference = density.log_prob(x.double()) - learned
    return {
        "log_density_error": float(difference.abs().mean()),
        "kl": float(difference.mean()),
        "log_z": float(log_z),
    }


def picture_scores(
    network: nn.Module, test: Tensor, outliers: Tensor, letters: bool
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """AUROC of telling `outliers` from `test`, both uint8 (N, C, H, W), by log p(x) and, of a
    classifier, by its confidence; and of telling letters. With them log p(x) of each set.
    """
    image = (test.shape[1], test.shape[2], test.shape[3])
    sets = {"": strangers.like(outliers, image)}
    if letters:
        sets["_letters"] = strangers.like(strangers.letters(500, seed=0).to(test.device), image)
    inside = ood.logits_of(network, test)
    metrics, scores = {}, {"test": ood.log_density(inside)}
    for name, images in sets.items():
        outside = ood.logits_of(network, images)
        scores[name.removeprefix("_") or "outliers"] = ood.log_density(outside)
        for ending, score in ood.SCORES.items():
            if inside.shape[1] > 1 or not ending:  # one output has no confidence
                metrics[f"ood_auroc{name}{ending}"] = ood.auroc(score(inside), score(outside))
    return metrics, scores


def classifier_metrics(
    network: nn.Module, x: Tensor, y: Tensor
) -> tuple[dict[str, float], list[float]]:
    """Accuracy, calibration and accuracy under attack, of uint8 x (N, C, H, W) and y (N,); and the
    accuracies at RADII.
    """
    logits = ood.logits_of(network, x)
    curve = [ood.robust_accuracy(network, x[:ATTACKED], y[:ATTACKED], r) for r in RADII]
    return {
        "test_accuracy": 100 * float((logits.argmax(dim=1) == y).float().mean()),
        "calibration_error": ood.calibration_error(logits, y),
        "robust_accuracy": curve[RADII.index(0.1)],
    }, curve


Labelled = tuple[Tensor, Tensor]
"""uint8 pictures (N, C, H, W) and their classes (N,)."""


def probe_metrics(
    encoder: Encoder | ViewEncoder,
    untrained: nn.Module,
    train: Labelled,
    test: Labelled,
    classes: int,
) -> dict[str, float]:
    """Week 4's linear probe and neighbours on `pooled`, before and after training.

    `rank` is the effective rank of the test pictures' representation.
    """
    (x, y), (x_test, y_test) = train, test

    def probed(network: nn.Module) -> tuple[float, Tensor, Tensor]:
        look = cast(Callable[[Tensor], Tensor], network.pooled)
        with evaluating(network):
            h, h_test = represent(look, x), represent(look, x_test)
        return linear_probe(h, y, h_test, y_test, classes)[0], h, h_test

    before, _, _ = probed(untrained)
    after, h, h_test = probed(encoder)
    return {
        "probe_accuracy": after,
        "random_accuracy": before,
        "probe_gain": after - before,
        "knn_accuracy": knn_accuracy(h, y, h_test, y_test, classes),
        "rank": float(regularisers.effective_rank(h_test[:1000])),
    }


def recorded_probes(data: str) -> dict[str, float]:
    """Probe accuracies that week 4 recorded at size tiny on that dataset: the mean of the seeds,
    by method. Empty when there are no records.
    """
    found: dict[str, list[float]] = {}
    for _, record in store.files_of(paths.ROOT / "results" / "representation_learning"):
        if comparable(record, data):
            method = record["config"]["method"]
            found.setdefault(method, []).append(record["metrics"]["probe_accuracy"])
    return {method: statistics.fmean(values) for method, values in sorted(found.items())}


def comparable(record: dict[str, Any], data: str) -> bool:
    """Whether a record of week 4 is a finished run of size tiny on that dataset, as it stands."""
    return bool(
        record["size"] == "tiny"
        and record["ended"] == "finished"
        and record["data"]["name"] == data
        and not record.get("experiment")
        and record["config"].get("probe", "representation") == "representation"
    )
