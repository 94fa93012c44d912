"""The test of a trained model: attacks, certificates, explanations; metrics and pictures."""

import torch
from torch import Tensor, nn

from labkit import Run, UsageError
from labkit.learning.modes import evaluating
from labkit.show.console import say
from robustness import attacks, compare, evaluate, figures, smoothing
from robustness.attacks import percent
from robustness.lime import grid
from robustness.model import MAPS
from robustness.settings import AttackSettings, CertifySettings, ExplainSettings

SHOWN = 8
"""Images in a row of a picture."""


def check(image: tuple[int, int, int], how: ExplainSettings) -> None:
    """Refuse explanations that images of this shape (C, H, W) cannot have, before training."""
    grid(image[1], image[2], how.cells)
    if how.deletions > image[1] * image[2]:
        raise UsageError(
            f"explain.deletions={how.deletions} is more than the {image[1] * image[2]} pixels of "
            f"an image; try explain.deletions={image[1]}"
        )


def held_out(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> float:
    """Accuracy in percent under ten steps of PGD from one random start."""
    with evaluating(model):
        return attacks.worst_case(attacks.pgd_correct(model, x, y, epsilon, 10, 1, seed=0))


class Tester:
    """A model in evaluation mode and the test images (N, C, H, W) that it is tested with."""

    def __init__(self, run: Run, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.run, self.model, self.x, self.y = run, model, x, y

    def attack(self, how: AttackSettings, epsilon: float, seed: int) -> dict[str, float]:
        """Accuracies under attack; attacked.png and epsilon.png."""
        metrics, signs = evaluate.under_attack(self.model, self.x, self.y, epsilon, how, seed)
        say(f"signs of masked gradients: {', '.join(signs) or 'none'}")
        x, y = self.x[:SHOWN], self.y[:SHOWN]
        found = attacks.pgd(self.model, x, y, epsilon, how.steps, 2.5 * epsilon / how.steps)
        with torch.no_grad():
            answers = [self.model(images).argmax(dim=1).tolist() for images in (x, found)]
        titles = [f"answer {answer}" for row in answers for answer in row]
        self.run.grid("attacked", torch.cat([x, found]), len(x), titles)
        sizes = [min(1.0, i / 5 * (epsilon or 0.1)) for i in range(9)]
        few = min(how.few, len(self.x))
        rows = evaluate.against_epsilon(
            self.model, self.x[:few], self.y[:few], sizes, how.steps, seed
        )
        self.run.figure("epsilon", figures.accuracy_curve(sizes, rows, "epsilon (pixel units)"))
        return metrics

    def certify(self, how: CertifySettings, seed: int) -> dict[str, float]:
        """Accuracy that is certain at an L2 radius, and of the smoothed answer; certified.png."""
        x, y = self.x[: how.images], self.y[: how.images]
        radii = torch.tensor(
            smoothing.certify(self.model, x, y, how.deviation, how.samples, how.alpha, seed)
        )
        top = max(1.25 * how.radius, radii.max().item(), 0.1)
        sizes = [i / 50 * top for i in range(51)]
        rows = {f"noise {how.deviation:g}": [percent(radii >= size) for size in sizes]}
        label = "certified L2 radius (pixel units)"
        self.run.figure("certified", figures.accuracy_curve(sizes, rows, label))
        return {
            "smoothed_accuracy": percent(radii >= 0),
            "certified_accuracy": percent(radii >= how.radius),
        }

    def explain(self, how: ExplainSettings, network: str, seed: int) -> dict[str, float]:
        """What the checks say of each explanation; explained.png, deletion.png, sanity.png."""
        x, y = self.x[: how.images], self.y[: how.images]
        found = compare.compare(self.model, x, y, MAPS[network], how, seed)
        own = found.maps
        table = {
            name: {"deletion": round(found.area(name), 2), "sanity": round(values[-1], 3)}
            for name, values in found.sanity.items()
        }
        self.run.note(explanations=table, deletion_random=round(found.area("random"), 2))
        for name, row in table.items():
            say(f"{name}: deletion area {row['deletion']:.1f} %, sanity {row['sanity']:+.2f}")
        self.pictures(x, own)
        curves = {name: values.tolist() for name, values in found.deletion.items()}
        self.run.figure("deletion", figures.deletion(curves))
        self.run.figure("sanity", figures.sanity(found.layers, found.sanity))
        complete = own["integrated gradients"]
        return {
            "ig_gap": compare.completeness_gap(self.model, x, y, complete),
            "ig_deletion": found.area("integrated gradients"),
            "random_deletion": found.area("random"),
            "ig_sanity": found.sanity["integrated gradients"][-1],
            "lime_agreement": compare.seed_agreement(
                self.model, x, y, own[compare.LIME], how, seed
            ),
        }

    def pictures(self, x: Tensor, maps: dict[str, Tensor]) -> None:
        """explained.png: a row for each of four images, the image first; bright is important."""
        names = list(maps)
        images, titles = [], []
        for i in range(min(4, len(x))):
            images.append(x[i].mean(dim=0))
            titles.append("image")
            for name in names:
                heat = maps[name][i].abs()
                images.append(heat / heat.max().clamp(min=1e-12))
                titles.append(name.replace("integrated gradients", "integrated"))
        self.run.grid("explained", torch.stack(images), len(names) + 1, titles)
