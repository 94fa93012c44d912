"""Drawing: reproducible, independent of how it is cut, and the same after a trip to disk."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion import Pipeline, Settings, UNet, from_pictures, to_pictures
from diffusion.model import Conv


def settings(objective: str) -> Settings:
    sampler = "heun" if objective == "flow" else "ddim"
    return Settings(objective, "cosine", 50, 0.0, 1.0, sampler, 4, 2.0, (1, 8, 8))


def pipeline(objective: str = "eps") -> Pipeline:
    torch.manual_seed(0)
    network = UNet(width=8, blocks=1)
    for module in network.modules():
        if isinstance(module, Conv) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.2)  # at zero, nothing has an effect
    return Pipeline(network.eval(), settings(objective))


LABELS = torch.arange(6)


@pytest.mark.parametrize("objective", ["eps", "v", "x0", "flow"])
def test_the_same_seed_draws_the_same_pictures(objective: str) -> None:
    draw = pipeline(objective)
    first = draw(LABELS, seed=3)
    assert first.shape == (6, 1, 8, 8)
    assert first.dtype == torch.uint8
    assert torch.equal(first, draw(LABELS, seed=3))
    assert not torch.equal(first, draw(LABELS, seed=4))


def test_labels_and_guidance_change_the_pictures() -> None:
    draw = pipeline()
    base = draw(LABELS)
    assert not torch.equal(base, draw(LABELS.flip(0)))
    assert not torch.equal(base, draw(LABELS, guidance=3.0))


def test_pictures_are_drawn_in_batches_of_the_size_asked_for() -> None:
    seen: list[int] = []
    pipeline()(LABELS, batch_size=4, steps=1, trace=lambda x, x0: seen.append(len(x)))
    assert seen == [4, 2]


@pytest.mark.parametrize("objective", ["eps", "flow"])
def test_no_steps_at_all_are_refused_and_not_taken_for_the_usual_number(objective: str) -> None:
    with pytest.raises(ValueError, match="0 sampling steps"):
        pipeline(objective)(LABELS, steps=0)


@pytest.mark.parametrize("objective", ["eps", "flow"])
def test_a_saved_pipeline_draws_the_same(tmp_path: Path, objective: str) -> None:
    draw = pipeline(objective)
    draw.save(tmp_path / "model")
    loaded = Pipeline.load(tmp_path / "model")
    assert loaded.settings == draw.settings
    assert torch.equal(loaded(LABELS, seed=1), draw(LABELS, seed=1))


def test_range_of_pixels_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    x = from_pictures(pixels)
    assert x.min() == -1
    assert x.max() == 1
    assert torch.equal(to_pictures(x), pixels)
    assert to_pictures(Tensor([-7.0, 7.0])).tolist() == [0, 255]
