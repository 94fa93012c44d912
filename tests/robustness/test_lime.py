"""LIME against scikit-learn and closed forms; the checks of explanations against scipy."""

import math

import pytest
import torch
from scipy import stats
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from labkit import UsageError
from robustness import faithfulness, lime


class Sum(nn.Module):
    """Probability of class 1: that of a logit, the sum of weights times pixels."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = w

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_segments_cover_the_picture() -> None:
    found = lime.grid(4, 6, 2)
    assert found.tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    assert lime.grid(5, 3, 3).unique().tolist() == list(range(9))
    for cells in (0, 4):
        with pytest.raises(UsageError, match="cells"):
            lime.grid(5, 3, cells)


@pytest.mark.exercise("lime.kernel")
def test_the_kernel_is_of_the_cosine_distance() -> None:
    masks = torch.tensor(
        [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0]]
    ).bool()
    for width in (0.25, 1.5):
        found = lime.kernel(masks, width)
        for mask, value in zip(masks.double(), found.tolist(), strict=True):
            norm = mask.norm().item() * math.sqrt(5)
            distance = 1 - (mask.sum().item() / norm if norm else 0.0)
            assert value == pytest.approx(math.exp(-(distance**2) / width**2), rel=1e-5)
    assert torch.equal(lime.kernel(masks), lime.kernel(masks, 0.25))
    for width in (0.0, -1.0):
        with pytest.raises(UsageError, match="width"):
            lime.kernel(masks, width)


@pytest.mark.exercise("lime.fit")
def test_the_fit_is_a_weighted_ridge_regression() -> None:
    draw = torch.Generator().manual_seed(0)
    masks = torch.rand(30, 4, generator=draw) < 0.5
    outputs, weights = torch.rand(3, 30, generator=draw), torch.rand(30, generator=draw)
    kept = masks.clone(), outputs.clone(), weights.clone()
    for ridge in (1.0, 0.05):
        found = lime.fit(masks, outputs, weights, ridge)
        assert found.shape == (3, 4)
        assert found.dtype == torch.float32
        for row, output in zip(found, outputs, strict=True):
            peer = Ridge(alpha=ridge).fit(masks.numpy(), output.numpy(), weights.numpy())
            assert row.numpy() == pytest.approx(peer.coef_, abs=1e-5)
    for old, new in zip(kept, (masks, outputs, weights), strict=True):
        assert torch.equal(old, new)
    assert lime.fit(masks, outputs.double(), weights, 0.05).dtype == torch.float64
    one = lime.fit(masks, outputs[1:2], weights, 0.05)
    assert torch.allclose(one, found[1:2])
    for ridge in (0.0, -1.0):
        with pytest.raises(UsageError, match="ridge"):
            lime.fit(masks, outputs, weights, ridge)


def test_lime_finds_the_segments_that_matter() -> None:
    w = torch.zeros(1, 4, 6)
    w[0, :2, 3:], w[0, 2:, :3] = 0.2, -0.1
    x, y = torch.ones(2, 1, 4, 6), torch.tensor([1, 0])
    found = lime.lime(Sum(w).eval(), x, y, lime.grid(4, 6, 2), 400, seed=0)
    assert found.shape == (2, 4, 6)
    assert found[0].unique().numel() == 4
    top, low = found[0, 0, 5].item(), found[0, 3, 0].item()
    assert top > 0.1
    assert low < -0.05
    assert found[0, 0, 0].abs() < 0.01
    assert torch.allclose(found[1], -found[0], atol=1e-5)  # the other class
    again = lime.lime(Sum(w).eval(), x, y, lime.grid(4, 6, 2), 400, seed=0)
    other = lime.lime(Sum(w).eval(), x, y, lime.grid(4, 6, 2), 400, seed=1)
    assert torch.equal(again, found)
    assert not torch.equal(other, found)


@pytest.mark.exercise("faithfulness.rank_correlation")
def test_rank_correlation_is_spearmans() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 9, generator=draw), torch.randn(4, 9, generator=draw)
    a[1] = a[1].round()  # ties
    b[1] = b[1].round()
    a[2] = b[2].exp()  # the same order
    kept = a.clone(), b.clone()
    found = faithfulness.rank_correlation(a, b)
    for p, q, value in zip(a, b, found.tolist(), strict=True):
        assert value == pytest.approx(stats.spearmanr(p, q).statistic, abs=1e-9)
    assert found.dtype == torch.float64
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])
    assert faithfulness.rank_correlation(a[:1], torch.ones(1, 9)).tolist() == [0]
    assert faithfulness.rank_correlation(torch.ones(1, 9), a[:1]).tolist() == [0]


def test_layers_are_drawn_anew_from_the_top() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    changed, names = [], []
    for name, drawn in faithfulness.randomised(model, seed=0):
        names.append(name)
        now = drawn.state_dict()
        changed.append([k for k in before if "weight" in k and not torch.equal(now[k], before[k])])
    assert names == ["3", "2", "0"]
    assert changed == [["3.weight"], ["3.weight"], ["0.weight", "3.weight"]]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.exercise("faithfulness.deletion_curve")
def test_deletion_takes_the_most_important_pixels_first() -> None:
    w = torch.tensor([[[0.5, -2.0, 1.0], [3.0, 0.1, 0.7]]]).expand(2, 2, 3)
    x = torch.rand(3, 2, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    y, before = torch.tensor([1, 0, 1]), x.clone()
    importance = torch.stack([w[0], -w[0], torch.zeros(2, 3)])
    model = Sum(w).eval()
    found = faithfulness.deletion_curve(model, x, y, importance, 4)
    assert found.shape == (3, 5)
    orders = [[3, 2, 5, 0, 4, 1], [1, 4, 0, 5, 2, 3], [0, 1, 2, 3, 4, 5]]
    for n, order in enumerate(orders):
        for k, gone in enumerate([0, 2, 3, 4, 6]):  # round(k 6 / 4): 1.5 -> 2, 4.5 -> 4
            left = before[n].clone().flatten(1)
            left[:, order[:gone]] = 0
            expected = model(left.view(1, 2, 2, 3)).softmax(1)[0, y[n]].item()
            assert found[n, k].item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(x, before)
    assert not found.requires_grad
    assert faithfulness.deletion_curve(model, x[:1], y[:1], importance[:1], 6).shape == (1, 7)
    assert faithfulness.deletion_curve(model, x, y, importance, 1).shape == (3, 2)
    for steps in (0, 7):
        with pytest.raises(UsageError, match="steps"):
            faithfulness.deletion_curve(model, x, y, importance, steps)


def test_the_area_of_a_straight_line_is_its_middle() -> None:
    found = faithfulness.area(torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    assert found.tolist() == [0.5, 0.25]
