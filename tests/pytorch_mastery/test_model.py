"""The classifier: what goes in, what comes out, and that it comes back from disk the same."""

from pathlib import Path

import pytest
import torch

from labkit import UsageError
from pytorch_mastery import CNN, load_classifier, resize, save_classifier


def network(channels: int = 1) -> CNN:
    torch.manual_seed(0)
    model = CNN(channels, 10, 4, [0.2] * channels, [0.3] * channels)
    model(torch.rand(32, channels, 28, 28))  # moves the running statistics
    return model.eval()


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (1, 8), (3, 32)])
def test_shapes(channels: int, side: int) -> None:
    model = network(channels)
    x = torch.rand(5, channels, side, side)
    assert model(x).shape == (5, 10)
    assert model.features(x).shape == (5, 64)


def test_logits_are_read_from_the_features() -> None:
    model, x = network(), torch.rand(5, 1, 28, 28)
    expected = torch.relu(model.features(x)) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), expected)


def test_inputs_are_standardised_inside() -> None:
    """Another mean and deviation, and pictures moved to match, cancel."""
    model, x = network(), torch.rand(5, 1, 28, 28)
    expected = model(x)
    model.mean.fill_(0)
    model.std.fill_(1)
    torch.testing.assert_close(model((x - 0.2) / 0.3), expected)


def test_resize_is_the_identity_at_28_and_keeps_the_mean() -> None:
    x = torch.rand(2, 1, 28, 28)
    assert resize(x) is x
    small = torch.rand(2, 1, 14, 14)
    assert resize(small).mean().item() == pytest.approx(small.mean().item(), abs=0.01)


def test_a_saved_classifier_is_loaded_ready_to_use(tmp_path: Path) -> None:
    model, x = network(), torch.rand(5, 1, 28, 28)
    save_classifier(model, tmp_path)
    loaded = load_classifier(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(loaded(x), model(x))


def test_a_folder_without_a_classifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no classifier.*config\.json"):
        load_classifier(tmp_path)
