"""Extractors: the lab's network as week 3 computes it, and hub models from a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evaluation import extractors, score
from evaluation.settings import Measures
from labkit import UsageError
from labkit.data import ImageData, load
from pytorch_mastery import CNN
from tests.evaluation.test_images import folder


def pictures(n: int = 7, channels: int = 1, height: int = 10, width: int = 14) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, height, width), generator=generator).byte()


def cnn(channels: int = 1) -> CNN:
    torch.manual_seed(0)
    return CNN(channels, 10, 4).eval().requires_grad_(False)


def test_the_classifiers_features_and_probabilities_are_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extractors, "BATCH", 3)
    network, x = cnn(), pictures()
    found = extractors.of_classifier(network, "mine")(x)
    features = network.features(x.float() / 255)
    assert found.features.dtype == np.float64
    np.testing.assert_allclose(found.features, features.numpy(), atol=1e-5)
    assert found.probabilities is not None
    expected = network(x.float() / 255).softmax(dim=1).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_features_are_standardised_over_the_training_pictures() -> None:
    data = load("digits", kind=ImageData)
    assert isinstance(data, ImageData)
    extractor, features = extractors.standardised(cnn(), data, "cpu")
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-9)
    again = extractor(torch.from_numpy(data.train.x[:20].copy())).features
    np.testing.assert_allclose(again, features[:20], atol=1e-4)
    assert extractor.dimensions == 64
    assert extractor.name == "classifier of week 3, trained on digits"


def test_grey_becomes_three_equal_channels_and_sizes_change_with_antialiasing() -> None:
    x = pictures(2, height=60, width=60)
    found = extractors.prepared(x, 20, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert found.shape == (2, 3, 20, 20)
    assert torch.equal(found[:, 0], found[:, 2])
    expected = F.interpolate(x.float() / 255, (20, 20), mode="bicubic", antialias=True)
    torch.testing.assert_close(found[:, :1], expected.clamp(0, 1))
    moved = extractors.prepared(x, 20, (0.1, 0.2, 0.3), (1.0, 1.0, 0.5))
    torch.testing.assert_close(moved[:, 2], (found[:, 2] - 0.3) / 0.5)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random DINOv2 as transformers saves it."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=28,
        patch_size=14,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("dinov2")
    Dinov2Model(config).save_pretrained(place)
    return place


def test_dinov2_gives_its_class_token(dinov2: Path) -> None:
    from transformers import Dinov2Model

    extractor = extractors.pretrained("dinov2", str(dinov2), "cpu")
    found = extractor(pictures(3, channels=3))
    assert found.probabilities is None
    network = Dinov2Model.from_pretrained(dinov2).eval()
    x = extractors.prepared(
        pictures(3, channels=3), 28, extractors.IMAGENET_MEAN, extractors.IMAGENET_STD
    )
    expected = network(pixel_values=x).last_hidden_state[:, 0].detach().numpy()
    np.testing.assert_allclose(found.features, expected, atol=1e-5)
    assert extractor.dimensions == 8
    assert str(dinov2) in extractor.name


def test_clip_gives_its_image_embedding(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8, projection_dim=6,
    )  # fmt: skip
    network = CLIPVisionModelWithProjection(config).eval()
    network.save_pretrained(tmp_path)
    found = extractors.pretrained("clip", str(tmp_path), "cpu")(pictures(2))
    x = extractors.prepared(pictures(2), 16, extractors.CLIP_MEAN, extractors.CLIP_STD)
    expected = network(pixel_values=x).image_embeds.detach().numpy()
    np.testing.assert_allclose(found.features, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "clip", "inception"])
def test_weights_that_cannot_be_had_are_named_with_the_way_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"extractor=.*classifier"):
        extractors.pretrained(name, str(tmp_path / "nothing"), "cpu")


def test_folders_are_scored(
    dinov2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command, on sets whose answer is known: copies of the training images."""
    real, train = folder(tmp_path / "real", 30, seed=1), folder(tmp_path / "train", 30, seed=2)
    out = tmp_path / "scores.json"
    words = [f"real={real}", f"fake={train}", f"train={train}", "extractor=dinov2",
             f"weights={dinov2}", f"out={out}", "device=cpu"]  # fmt: skip
    assert score.main(words) == 0
    assert "30 real and 30 fake images, dinov2" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["scores"]["copied"] == 100
    assert set(found["scores"]) >= {"fid", "fid_infinity", "kid", "precision", "recall", "density"}
    assert "inception_score" not in found["scores"], "DINOv2 has no classes"
    less = [*words[:2], *words[3:5], "metrics=kid,precision_recall", "device=cpu"]
    assert score.main(less) == 0
    assert "fid" not in capsys.readouterr().out


def test_few_images_are_refused_by_the_distance_only(
    dinov2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, fake = folder(tmp_path / "real", 7, seed=1), folder(tmp_path / "fake", 30, seed=2)
    words = [f"real={real}", f"fake={fake}", "extractor=dinov2", f"weights={dinov2}", "device=cpu"]
    assert score.main([*words, "metrics=fid"]) == 2
    assert "7 images and 8 features" in capsys.readouterr().err
    assert score.main([*words, "metrics=fid", "allow_few=true"]) == 0
    assert score.main([*words, "metrics=kid"]) == 0
    one = folder(tmp_path / "same", 1)
    for i in range(1, 9):
        (one / f"{i}.png").write_bytes((one / "000.png").read_bytes())
    capsys.readouterr()
    assert score.main([f"real={real}", f"fake={one}", *words[2:], "metrics=kid"]) == 0
    assert "all 9 images" in capsys.readouterr().err
    assert score.main([f"real={one}", f"fake={fake}", *words[2:]]) == 2
    assert "all 9 real images are identical" in capsys.readouterr().err


def test_features_that_are_not_finite_are_named(dinov2: Path) -> None:
    from evaluation.measures import measure

    good = np.random.default_rng(0).standard_normal((20, 3))
    bad: Any = good.copy()
    bad[4] = np.nan
    with pytest.raises(UsageError, match=r"features of the samples of 1 of 20.*image 4"):
        measure(good, extractors.Seen(bad, None), Measures())
    with pytest.raises(UsageError, match="features of the real images of 1"):
        measure(bad, extractors.Seen(good, None), Measures())
