"""Pictures during training: when they come, and that training does not notice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion import Pipeline, Settings, UNet
from diffusion.ddpm import DDPM
from diffusion.ema import EMA
from diffusion.evaluate import Preview


class Drawing:
    """The part of a Run that a preview uses; time is the caller's."""

    seed, dir = 3, Path("run")

    def __init__(self) -> None:
        self.train_seconds = 0.0
        self.drawn: dict[str, Any] = {}

    def grid(self, name: str, images: Any, columns: int) -> None:
        self.drawn[name] = images


def settings(objective: str) -> Settings:
    sampler = "heun" if objective == "flow" else "ancestral"
    return Settings(objective, "cosine", 50, 0.0, 1.0, sampler, 4, 2.0, (1, 8, 8))


@pytest.mark.parametrize("objective", ["eps", "flow"])
def test_pictures_come_after_half_a_minute_and_then_ever_more_rarely(objective: str) -> None:
    run: Any = Drawing()
    network = UNet(width=8, blocks=1, classes=4).eval().requires_grad_(False)
    preview = Preview(run, Pipeline(network, settings(objective)), 2.0)
    for step in range(140):
        run.train_seconds = float(step)
        preview.look(step)
    assert list(run.drawn) == ["preview_000030", "preview_000060", "preview_000120"]
    assert all(images.shape == (12, 1, 8, 8) for images in run.drawn.values())
    assert all(images.dtype == torch.uint8 for images in run.drawn.values())


def test_a_resumed_run_draws_only_what_is_still_to_come() -> None:
    run: Any = Drawing()
    network = UNet(width=8, blocks=1, classes=4).eval().requires_grad_(False)
    preview = Preview(run, Pipeline(network, settings("eps")), 2.0)
    for step in range(70, 130):
        run.train_seconds = float(step)
        preview.look(step)
    assert list(run.drawn) == ["preview_000120"]


def train(looks: bool) -> list[np.ndarray]:
    """Weights and averaged weights after steps whose noise comes from the global generator."""
    torch.manual_seed(0)
    model, process = UNet(width=8, blocks=1), DDPM("eps", "cosine", 50)
    ema = EMA(model, 0.9)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run: Any = Drawing()
    preview = Preview(run, Pipeline(ema.average, settings("eps")), 2.0)
    for step in range(4):
        run.train_seconds = 40.0 * 2**step
        loss = process.loss(model, torch.rand(5, 1, 8, 8), torch.arange(5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(model)
        if looks:
            preview.look(step)
    assert len(run.drawn) == (3 if looks else 0)  # what lies before the first step is past
    assert model.training
    return [p.detach().numpy() for net in (model, ema.average) for p in net.parameters()]


def test_training_does_not_notice() -> None:
    for watched, alone in zip(train(True), train(False), strict=True):
        np.testing.assert_array_equal(watched, alone)
