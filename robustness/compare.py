"""Six explanations of the same answers, and what the two checks say about each."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustness import explanations, faithfulness, lime
from robustness.settings import ExplainSettings

LIME = "LIME"


def maps(
    model: nn.Module, x: Tensor, y: Tensor, layer: str, how: ExplainSettings, seed: int
) -> dict[str, Tensor]:
    """Importance of each pixel for class y by each method, (B, H, W).

    Channels are added where a method has a sign, else the largest counts. The baseline is black.
    """
    slope = explanations.class_gradient(model, x, y)
    black = torch.zeros_like(x)
    smooth = explanations.smooth_grad(model, x, y, how.deviation, how.noisy, seed)
    segments = lime.grid(x.shape[2], x.shape[3], how.cells)
    return {
        "gradient": slope.abs().amax(dim=1),
        "input x gradient": (x * slope).sum(dim=1),
        "integrated gradients": explanations.integrated_gradients(model, x, y, black, how.path).sum(
            dim=1
        ),
        "SmoothGrad": smooth.abs().amax(dim=1),
        "Grad-CAM": explanations.grad_cam_of(model, layer, x, y),
        LIME: lime.lime(model, x, y, segments, how.samples, seed),
    }


@dataclass(frozen=True)
class Comparison:
    """What the checks found."""

    maps: dict[str, Tensor]
    """Of the trained model, (B, H, W) each."""
    deletion: dict[str, Tensor]
    """Mean deletion curve of each method, and of a random order: (S,)."""
    layers: list[str]
    """In the order in which they were randomised."""
    sanity: dict[str, list[float]]
    """Mean rank correlation with `maps` after each of them."""

    def area(self, name: str) -> float:
        """Under the method's deletion curve, in percent: lower is better."""
        return 100 * faithfulness.area(self.deletion[name][None]).item()


def compare(
    model: nn.Module, x: Tensor, y: Tensor, layer: str, how: ExplainSettings, seed: int
) -> Comparison:
    """Make all maps of the model and of its randomised copies, and delete by each."""
    own = maps(model, x, y, layer, how, seed)
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(own[LIME].shape, generator=generator).to(x.device)
    deletion = {
        name: faithfulness.deletion_curve(model, x, y, values, how.deletions).mean(dim=0)
        for name, values in (own | {"random": chance}).items()
    }
    layers: list[str] = []
    sanity: dict[str, list[float]] = {name: [] for name in own}
    for name, drawn in faithfulness.randomised(model, seed):
        layers.append(name)
        for method, values in maps(drawn, x, y, layer, how, seed).items():
            correlation = faithfulness.rank_correlation(own[method].flatten(1), values.flatten(1))
            sanity[method].append(correlation.mean().item())
    return Comparison(own, deletion, layers, sanity)


def completeness_gap(model: nn.Module, x: Tensor, y: Tensor, attributions: Tensor) -> float:
    """By how much integrated gradients from black miss the change of the logit, in percent of it.

    attributions are (B, H, W). Means over pictures are taken before dividing.
    """
    with torch.no_grad():
        change = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None])[:, 0]
    missed = attributions.flatten(1).sum(dim=1) - change
    return (100 * missed.abs().mean() / change.abs().mean().clamp(min=1e-12)).item()


def seed_agreement(
    model: nn.Module, x: Tensor, y: Tensor, first: Tensor, how: ExplainSettings, seed: int
) -> float:
    """Mean rank correlation of LIME's maps `first`, (B, H, W), with those of the next seed."""
    segments = lime.grid(x.shape[2], x.shape[3], how.cells)
    second = lime.lime(model, x, y, segments, how.samples, seed + 1)
    return faithfulness.rank_correlation(first.flatten(1), second.flatten(1)).mean().item()
