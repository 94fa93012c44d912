"""Toy models against loops, closed forms, numerical integrals, and the paper's polygons."""

from __future__ import annotations

import math

import pytest
import torch

from robustness.mechanistic import superposition
from robustness.mechanistic.jobs import Superposition
from robustness.mechanistic.settings import SuperpositionSettings


def polygon(corners: int) -> torch.Tensor:
    """(1, 2, corners): unit directions evenly around a circle."""
    angle = 2 * math.pi * torch.arange(corners) / corners
    return torch.stack([angle.cos(), angle.sin()])[None]


@pytest.mark.exercise("mechanistic.superposition.toy_loss")
def test_toy_loss_is_weighted_summed_over_features_and_averaged_over_examples() -> None:
    torch.manual_seed(0)
    out, x, importance = torch.randn(4, 3, 5), torch.randn(4, 3, 5), torch.rand(3, 5)
    wanted = torch.zeros(3)
    for b in range(4):
        for k in range(3):
            for i in range(5):
                wanted[k] += importance[k, i] * (x[b, k, i] - out[b, k, i]) ** 2 / 4
    kept = out.clone(), x.clone(), importance.clone()
    torch.testing.assert_close(superposition.toy_loss(out, x, importance), wanted)
    assert all(map(torch.equal, kept, (out, x, importance)))
    out.requires_grad_()
    superposition.toy_loss(out, x, importance).sum().backward()
    torch.testing.assert_close(out.grad, importance * (out - x).detach() / 2)
    out = out.detach()
    one = superposition.toy_loss(out[:1, :1], x[:1, :1], importance[0])
    torch.testing.assert_close(one, (importance[0] * (x - out)[0, 0] ** 2).sum()[None])


@pytest.mark.exercise("mechanistic.superposition.two_feature_losses")
@pytest.mark.parametrize(("p", "r"), [(1.0, 1.0), (0.4, 0.3), (0.05, 4.0)])
def test_losses_of_the_three_models_are_those_of_an_integral(p: float, r: float) -> None:
    """Over whether each feature is present, and over the midpoints of a grid of their values."""
    grid = (torch.arange(400).double() + 0.5) / 400
    u, v = torch.meshgrid(grid, grid, indexing="ij")
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]).double()
    biases = torch.tensor([[0.0, p / 2], [p / 2, 0.0], [0.0, 0.0]]).double()
    got = superposition.two_feature_losses(torch.tensor(p), torch.tensor(r))
    for phase in range(3):
        expected = 0.0
        for first in (0, 1):
            for second in (0, 1):
                chance = (p if first else 1 - p) * (p if second else 1 - p)
                x = torch.stack([first * u, second * v], -1)
                h = x @ weights[phase]
                out = torch.relu(h[..., None] * weights[phase] + biases[phase])
                error = (torch.tensor([1.0, r]).double() * (x - out) ** 2).sum(-1)
                expected += chance * error.mean().item()
        assert got[phase].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.exercise("mechanistic.superposition.two_feature_losses")
def test_losses_broadcast_and_give_the_phases_of_the_paper() -> None:
    density, importance = torch.tensor([[1.0], [0.01]]), torch.tensor([0.1, 1.0, 10.0])
    losses = superposition.two_feature_losses(density, importance)
    assert losses.shape == (3, 2, 3)
    assert losses[:, 0].argmin(0)[[0, 2]].tolist() == [0, 1]  # dense: the more important one alone
    assert losses[:, 1].argmin(0).tolist() == [2, 2, 2]  # sparse: both
    assert losses[0, 0, 1] == losses[1, 0, 1]


@pytest.mark.exercise("mechanistic.superposition.dimensionality")
@pytest.mark.parametrize(("corners", "wanted"), [(2, 1 / 2), (3, 2 / 3), (4, 1 / 2), (5, 2 / 5)])
def test_corners_of_a_polygon_share_two_dimensions(corners: int, wanted: float) -> None:
    shares = superposition.dimensionality(polygon(corners) * 1.7)
    if corners == 2:  # an antipodal pair uses one of them
        wanted = 1 / 2
    torch.testing.assert_close(shares, torch.full((1, corners), wanted))


@pytest.mark.exercise("mechanistic.superposition.dimensionality")
def test_dimensionality_by_its_definition_with_lengths_that_differ() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 4, 6)
    weight[1, :, 2] = 0
    shares = superposition.dimensionality(weight)
    for k in range(3):
        for i in range(6):
            column = weight[k, :, i]
            if column.norm() == 0:
                assert shares[k, i] == 0
                continue
            unit = column / column.norm()
            below = sum((unit @ weight[k, :, j]) ** 2 for j in range(6))
            assert shares[k, i].item() == pytest.approx((column @ column / below).item(), rel=1e-4)
    own = superposition.dimensionality(torch.diag(torch.tensor([3.0, 0.5]))[None])
    torch.testing.assert_close(own, torch.ones(1, 2))
    assert superposition.dimensionality(torch.zeros(1, 2, 3)).tolist() == [[0, 0, 0]]


def test_features_are_present_as_often_as_said_and_uniform() -> None:
    sparsity = torch.tensor([0.0, 0.7, 0.95])
    x = superposition.draw_features(20_000, 4, sparsity, torch.Generator().manual_seed(0))
    assert x.shape == (20_000, 3, 4)
    present = x > 0
    torch.testing.assert_close(present.float().mean((0, 2)), 1 - sparsity, rtol=0.02, atol=0.005)
    for k in range(3):
        values = x[:, k][present[:, k]]
        assert values.max() <= 1
        assert values.mean().item() == pytest.approx(0.5, abs=0.01)
        assert values.var().item() == pytest.approx(1 / 12, abs=0.004)
    both = (present[:, 1, 0] & present[:, 1, 1]).float().mean().item()
    assert both == pytest.approx(0.09, abs=0.01)  # features are independent


@pytest.mark.parametrize("bad", [1.0, -0.1, float("nan")])
def test_a_sparsity_outside_its_interval_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="sparsity must be from 0 to below 1"):
        superposition.draw_features(2, 2, torch.tensor([0.5, bad]), torch.Generator())


def test_models_side_by_side_are_those_alone() -> None:
    torch.manual_seed(0)
    models = superposition.ToyModels(3, features=5, hidden=2)
    models.bias.data.normal_()
    x = torch.rand(4, 3, 5)
    out = models(x)
    for k in range(3):
        w, b = models.weight[k], models.bias[k]
        torch.testing.assert_close(out[:, k], torch.relu(x[:, k] @ w.T @ w + b))


def test_the_expected_loss_is_the_closed_form_of_the_three_models() -> None:
    density, importance = torch.tensor([0.05, 0.6, 1.0]), torch.tensor([3.0, 0.2, 1.0])
    closed = superposition.two_feature_losses(density, importance)
    models = superposition.ToyModels(3, features=2, hidden=1)
    half = density / 2
    for phase, (weight, bias) in enumerate((
        ([1.0, 0.0], torch.stack([0 * half, half], 1)),
        ([0.0, 1.0], torch.stack([half, 0 * half], 1)),
        ([1.0, -1.0], torch.zeros(3, 2)),
    )):  # fmt: skip
        models.weight.data.copy_(torch.tensor(weight).expand(3, 1, 2))
        models.bias.data.copy_(bias)
        got = superposition.expected_loss(models, density, importance)
        torch.testing.assert_close(got, closed[phase], rtol=2e-3, atol=1e-6)
    alone = superposition.expected_loss(
        models.chosen(torch.tensor([2, 0])), density[[2, 0]], importance[[2, 0]]
    )
    torch.testing.assert_close(alone, got[[2, 0]])


def test_phases_are_read_off_the_weights() -> None:
    weight = torch.tensor([[[1.0, 0.1]], [[-0.2, -0.9]], [[0.8, -0.9]], [[0.1, 0.0]]])
    assert superposition.phase_of(weight).tolist() == [0, 1, 2, -1]
    loss = torch.tensor([3.0, 1.0, 2.0, 0.5, 0.6, 0.7])
    assert superposition.best_of(loss, 3).tolist() == [1, 3]


def test_the_grid_has_a_model_for_each_cell_and_restart() -> None:
    settings = SuperpositionSettings(cells=3, restarts=2, sparsest=0.04, densest=1.0, range=9.0)
    job = Superposition(settings, seed=0, device=torch.device("cpu"))
    torch.testing.assert_close(job.density.view(3, 3)[:, 0], torch.tensor([1.0, 0.2, 0.04]))
    torch.testing.assert_close(job.importance.view(3, 3)[1], torch.tensor([1 / 9, 1.0, 9.0]))
    assert job.phase.weight.shape == (18, 1, 2)
    torch.testing.assert_close(job.weights[2], torch.tensor([1.0, 1.0]))  # cell 1, first restart
    torch.testing.assert_close(job.sparsity[6:8], torch.tensor([0.8, 0.8]))
    before = job.loss(0)
    assert torch.equal(before, job.loss(0))  # a function of seed and step
    assert not torch.equal(before, job.loss(1))
