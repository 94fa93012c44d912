"""What each method learned: its measures, and its pictures."""

from __future__ import annotations

from typing import cast

import torch

from ebm_jepa import densities, evaluate, figures, jem, sgld
from ebm_jepa.ebm import EBM, EnergyLearner
from ebm_jepa.energy import LogitEnergy
from ebm_jepa.evaluate import Labelled
from ebm_jepa.jem import JEM
from ebm_jepa.jepa import JEPA
from ebm_jepa.settings import DensitySettings
from ebm_jepa.views import Views
from labkit import Run
from labkit.data import ImageData
from labkit.learning.modes import evaluating

SHOWN = 100
"""Chains in the picture of samples."""
REFINE = 5
"""Times as many steps as in training that the shown chains are moved on by the averaged energy."""


def plane_report(run: Run, learner: EBM, density: densities.Density) -> dict[str, float]:
    """Learned against true log-density, and their maps."""
    s = cast(DensitySettings, learner.own)
    energy = learner.ema.average
    metrics = evaluate.density_error(energy, density, s.grid, run.seed, run.device)
    points = densities.grid(s.grid, run.device)
    with evaluating(energy):
        learned = -energy(points) - metrics["log_z"]
    chains = refined(learner, 1000)
    data = density.sample(1000, torch.Generator().manual_seed(run.seed))
    square = (s.grid, s.grid)
    true = density.log_prob(points).view(square)
    run.figure("density", figures.plane(true.cpu(), learned.view(square).cpu(), chains.cpu(), data))
    run.plot("training", "train/loss")
    return metrics


def refined(learner: EnergyLearner, count: int) -> torch.Tensor:
    """Chains of the buffer, moved on by the averaged energy: (count, ...)."""
    s = learner.settings
    x, _ = learner.buffer.draw(count)
    with learner.autocast():
        return sgld.sample(
            learner.ema.average, x, REFINE * s.langevin_steps, s.step_size, s.noise, learner.bound
        ).float()


def energy_report(
    run: Run, learner: JEM | EBM, data: ImageData, measured: Labelled, outliers: ImageData
) -> dict[str, float]:
    """A picture energy: what it tells apart, and of a classifier what it classifies."""
    average = learner.ema.average
    assert isinstance(average, LogitEnergy)
    strange = torch.from_numpy(outliers.test.x.copy()).to(run.device)
    digits = data.classes == tuple("0123456789")
    metrics, scores = evaluate.picture_scores(average.network, measured[0], strange, digits)
    run.figure("scores", figures.histograms({name: s.cpu() for name, s in scores.items()}))
    if isinstance(learner, JEM):
        more, curve = evaluate.classifier_metrics(average.network, *measured)
        metrics = more | metrics
        run.figure("robustness", figures.robustness(evaluate.RADII, curve))
    run.plot("training", "train/loss")
    if not (isinstance(learner, JEM) and learner.own.p_x == 0):
        samples = refined(learner, SHOWN)
        if isinstance(learner, JEM):  # sorted by the class that the classifier sees
            with evaluating(average):
                samples = samples[average.network(samples).argmax(dim=1).argsort()]
        run.grid("samples", jem.to_unit(samples), columns=10)
        run.plot("energies", "train/energy_real", "train/energy_fake")
    return metrics


def jepa_report(
    run: Run, learner: JEPA | Views, data: ImageData, train: Labelled, measured: Labelled
) -> dict[str, float]:
    """Week 4's probe before and after training, beside what week 4 recorded on the same data."""
    metrics = evaluate.probe_metrics(
        learner.teacher, learner.untrained, train, measured, len(data.classes)
    )
    run.plot("training", "train/prediction_error")
    run.plot("rank", "train/rank")
    table = {f"week 4: {k}": v for k, v in evaluate.recorded_probes(data.name).items()}
    name = f"JEPA, {learner.settings.task}, {learner.settings.anti_collapse}"
    own = {name: metrics["probe_accuracy"], "JEPA, untrained": metrics["random_accuracy"]}
    run.figure("probes", figures.bars(table | own))
    if isinstance(learner, Views):
        return metrics
    encoder, images = learner.teacher, measured[0][:8].float() / 255
    with evaluating(encoder):
        tokens = encoder(images)
    drawn = figures.token_colours(images, tokens, encoder.rows, encoder.columns)
    run.grid("tokens", drawn, columns=8)
    return metrics
