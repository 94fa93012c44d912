"""The models compared: by name or by folder, of the right dataset, and controls that are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion import Pipeline, Settings, UNet
from evaluation import controls, models
from labkit import UsageError
from labkit.data import ImageData, load
from labkit.run import artifacts


@pytest.fixture
def digits() -> ImageData:
    data = load("digits", kind=ImageData)
    assert isinstance(data, ImageData)
    return data


def run_of(folder: Path, dataset: str = "digits", week: str = "diffusion") -> Path:
    """A finished run's folder with a small random model."""
    settings = Settings("eps", "cosine", 50, 0.0, 1.0, "ddim", 2, 1.0, (1, 8, 8))
    torch.manual_seed(0)
    Pipeline(UNet(width=8, blocks=1), settings).save(folder / "model")
    record = {
        "schema": 1, "week": week, "size": "tiny", "config": {}, "seed": 0, "metrics": {},
        "ended": "finished", "started": "2026-01-01", "data": {"name": dataset},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_opened_from_its_folder(tmp_path: Path, digits: ImageData) -> None:
    run: Any = type("R", (), {"size": "tiny", "device": "cpu", "autocast": torch.no_grad})()
    folder = run_of(tmp_path / "mine")
    draws = models.all_draws([str(folder)], digits, run)
    found = draws[str(folder)](5, 3)
    assert found.shape == (5, 1, 8, 8)
    assert torch.equal(found, Pipeline.load(folder / "model")(
        models.random_labels(digits, 5, 3), seed=3
    ))  # fmt: skip
    models.check_pictures(found, digits, "mine")
    with pytest.raises(UsageError, match=r"mine draws .* and digits has bytes"):
        models.check_pictures(found[:, :, :4], digits, "mine")
    assert models.title(str(folder)) == "mine"
    assert models.title("flow") == "rectified flow"


def test_a_run_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the folder of a finished run"):
        models.run_folder(f"{tmp_path}/none", "digits")
    other = run_of(tmp_path / "other", dataset="mnist")
    with pytest.raises(UsageError, match="trained on mnist, and this comparison is about digits"):
        models.run_folder(str(other), "digits")
    text = run_of(tmp_path / "text", week="pretraining")
    with pytest.raises(UsageError, match="a run of pretraining, which draws no pictures"):
        models.run_folder(str(text), "digits")
    (other / "result.json").write_text("{")
    with pytest.raises(UsageError, match="is not a result record"):
        models.run_folder(str(other), "digits")


def test_names_are_checked() -> None:
    models.check_names(["vae", "flow", "runs/diffusion/tiny/x"])
    with pytest.raises(UsageError, match="'flwo' is not a known model; did you mean flow"):
        models.check_names(["flwo"])
    with pytest.raises(UsageError, match="each model once"):
        models.check_names(["vae", "vae"])


def test_missing_runs_are_announced_with_their_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {"flow": 300.0, None: 240.0}
    monkeypatch.setattr(
        artifacts, "at_hand", lambda week, data, experiment, size: week != "diffusion"
    )
    monkeypatch.setattr(
        artifacts, "recorded_seconds", lambda week, size, data, experiment: times.get(experiment)
    )
    models.announce(["vae", "ddpm", "flow", "latent"], "mnist", "tiny")
    said = capsys.readouterr().err
    assert "3 of the models to compare are not trained yet" in said
    assert "DDPM: 4 min 00 s when last recorded" in said
    assert "latent diffusion: time not recorded yet" in said
    assert "together about 9 min 00 s or more" in said
    assert "VAE" not in said
    models.announce(["vae"], "mnist", "tiny")
    assert capsys.readouterr().err == ""


def test_labels_are_as_frequent_as_in_the_training_set(digits: ImageData) -> None:
    labels = models.random_labels(digits, 20_000, seed=0)
    expected = np.bincount(digits.train.y) / len(digits.train)
    np.testing.assert_allclose(np.bincount(labels) / 20_000, expected, atol=0.01)


def test_controls_are_what_they_say(digits: ImageData) -> None:
    draws = controls.draws(digits)
    assert list(draws) == list(controls.TITLES)
    train = {image.tobytes() for image in digits.train.x}
    half = {image.tobytes() for image in digits.train.x[digits.train.y < 5]}
    for name, draw in draws.items():
        found = draw(50, 0)
        assert found.shape == (50, 1, 8, 8)
        assert found.dtype == torch.uint8
        assert torch.equal(found, draw(50, 0))
        assert not torch.equal(found, draw(50, 1))
        copied = [image.tobytes() in train for image in found.numpy()]
        assert all(copied) if name in ("copies", "collapse") else not any(copied)
    assert all(image.tobytes() in half for image in draws["collapse"](50, 0).numpy())
    assert len({image.tobytes() for image in draws["copies"](50, 0).numpy()}) > 45
    assert draws["copies"](2000, 0).shape[0] == 2000, "more than there are: some occur twice"
    noise, mean = draws["noise"](4000, 0).double(), digits.train.x.mean(axis=0)
    middle = (mean > 60) & (mean < 190)
    np.testing.assert_allclose(noise.mean(dim=0).numpy()[middle], mean[middle], atol=12)


def test_blur_is_a_mean_of_neighbours() -> None:
    point = torch.zeros(1, 2, 7, 9, dtype=torch.uint8)
    point[0, 1, 3, 4] = 255
    found = controls.blurred(point)[0]
    assert found[0].sum() == 0, "channels do not mix"
    weights = np.convolve([1, 2, 1], [1, 2, 1]) / 16
    np.testing.assert_allclose(found[1, 1:6, 2:7], 255 * np.outer(weights, weights), atol=0.51)
