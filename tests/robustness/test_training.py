"""Pictures to train on, the best weights, and certificates of a whole set."""

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from robustness import smoothing, training


class Linear(nn.Module):
    """Logits 0 and w . x + b."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w), b

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(1) + self.b
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_training_goes_to_the_worst_point_of_the_ball() -> None:
    w = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    x = torch.rand(4, 1, 3, 5, generator=torch.Generator().manual_seed(1))
    y = torch.ones(4, dtype=torch.int64)
    for offset in (5.0, -5.0):  # right and wrong pictures alike
        found = training.attacked(Linear(w, offset), x, y, 0.2, 5, 0.1)
        assert torch.allclose(found, (x - 0.2 * w.sign()).clamp(0, 1), atol=1e-6)
    torch.manual_seed(0)
    one = training.attacked(Linear(w, 0.0), x, y, 0.2, 1, 0.1)
    again = training.attacked(Linear(w, 0.0), x, y, 0.2, 1, 0.1)
    assert not torch.equal(one, again)  # from a random start
    assert (one - x).abs().max() <= 0.2 + 1e-6
    assert one.min() >= 0
    assert one.max() <= 1


def test_training_stops_far_below_its_best_and_returns_there() -> None:
    model = nn.Linear(2, 2)
    best = training.Best(fall=30)
    kept = model.weight.detach().clone()
    assert not best.broken(model, 60)
    with torch.no_grad():
        model.weight.fill_(7)
    assert not best.broken(model, 31)
    assert best.broken(model, 30)
    other = training.Best(fall=30)
    other.load_state_dict(best.state_dict())
    assert other.accuracy == 60
    other.restore(model)
    assert torch.equal(model.weight, kept)


def test_certificates_of_a_linear_classifier_are_below_its_distance() -> None:
    w = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    x = torch.rand(6, 1, 3, 5, generator=torch.Generator().manual_seed(1))
    model = Linear(w, -(x * w).flatten(1).sum(1).median().item()).eval()
    score = model(x)[:, 1].detach()
    y = (score > 0).long()
    distance = score.abs() / w.norm()
    found = torch.tensor(smoothing.certify(model, x, y, 0.25, 2000, 0.001, seed=0))
    for own, radius in zip(distance.tolist(), found.tolist(), strict=True):
        count = round(stats.norm.cdf(own / 0.25) * 2000)
        expected = smoothing.certified_radius(count, 2000, 0.25, 0.001)
        if expected is not None and 0.05 < own < 0.5:
            assert radius == pytest.approx(expected, abs=0.05)
        assert radius < max(own, 0.01)
    assert (found > 0.1).any()
    wrong = smoothing.certify(model, x, 1 - y, 0.25, 200, 0.001, seed=0)
    assert max(wrong) == -1
    counted = smoothing.counts(model, x, 0.25, 40, torch.Generator().manual_seed(0))
    assert counted.sum(1).tolist() == [40] * 6
