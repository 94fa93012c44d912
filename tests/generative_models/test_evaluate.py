"""Measures on models whose answer is known, and the geometry of the figures."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from generative_models import VAE, VQVAE, Autoencoder, evaluate, figures


def ignorant(latents: int = 3) -> VAE:
    """q is the prior, whatever the picture, and each pixel is 1 with probability one half."""
    model = VAE((1, 8, 8), 4, 2, latents)
    for module in (model.encoder.head, model.decoder.body[-1]):
        nn.init.zeros_(module.weight)  # type: ignore[arg-type]
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return model


PICTURES = torch.randint(
    256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)


def test_a_model_that_ignores_its_latents() -> None:
    model = ignorant()
    found = evaluate.vae_metrics(model, PICTURES, 5)
    assert found["neg_elbo"] == pytest.approx(64 * math.log(2), rel=1e-5)
    assert found["reconstruction"] == pytest.approx(64 * math.log(2), rel=1e-5)
    assert found["importance_bound"] == pytest.approx(64 * math.log(2), rel=1e-5)
    assert found["gap"] == pytest.approx(0, abs=1e-4)
    assert (found["kl"], found["active_units"]) == (0, 0)
    assert model.training


def test_latents_that_follow_the_picture_are_active() -> None:
    model = ignorant()
    with torch.no_grad():
        model.encoder.head.weight[1] = 5.0
    found = evaluate.vae_metrics(model, PICTURES, 2)
    assert found["active_units"] == 1
    assert found["kl"] > 0


def test_the_error_of_a_pixel_in_grey_levels() -> None:
    """All pixels become 128, one half; pictures are 0 and 255."""
    pictures = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    found = evaluate.pixel_error(Autoencoder(ignorant()), pictures)
    assert found == pytest.approx(math.sqrt((128**2 + 127**2) / 2))


def test_codes_in_use() -> None:
    model = VQVAE((1, 8, 8), 4, 2, codes=8, dimension=2)
    nn.init.constant_(model.encoder.head.weight, 0.0)
    nn.init.constant_(model.encoder.head.bias, 0.0)  # type: ignore[arg-type]
    found = evaluate.vq_metrics(model, PICTURES)
    assert found == {"codes_used": 12.5, "perplexity": 1.0}


def test_the_class_of_the_nearest_picture() -> None:
    known = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    features = torch.tensor([[9.0, 1.0], [1.0, 1.0], [2.0, 9.0], [6.0, 1.0]])
    labels = torch.tensor([4, 7, 1])
    assert evaluate.nearest_class(features, known, labels).tolist() == [7, 4, 1, 7]


def test_interpolation_on_the_great_circle() -> None:
    a, b = torch.zeros(2, 1, 1), torch.zeros(2, 1, 1)
    a[0], b[1] = 2.0, 4.0
    path = figures.spherical(a, b, 3).flatten(1)
    torch.testing.assert_close(path[0], a.flatten())
    torch.testing.assert_close(path[2], b.flatten())
    torch.testing.assert_close(path[1], torch.full((2,), 3 / math.sqrt(2)))
    torch.testing.assert_close(figures.spherical(a, a, 4), a.expand(4, 2, 1, 1))


def test_moments_of_the_film() -> None:
    found = sorted(figures.moments(1000, 10))
    assert (found[0], found[-1], len(found)) == (0, 999, 10)
    assert (np.diff(found)[1:] >= np.diff(found)[:-1]).all(), "ever further apart"
    assert figures.moments(1) == {0}


def test_a_sheet_has_its_pictures_in_rows() -> None:
    pictures = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 40, 32)
    sheet = figures.sheet(pictures, 2)
    assert sheet.shape == (80, 64, 3)
    assert sheet[::40, ::32, 0].tolist() == [[0, 1], [2, 3]]
