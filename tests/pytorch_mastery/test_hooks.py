"""Hooks against the same numbers computed without them; and they are gone afterwards."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytorch_mastery import CNN, hooks


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def count(model: nn.Module) -> int:
    """Hooks of every kind on the modules and parameters."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    on_modules = sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)
    return on_modules + sum(len(p._backward_hooks or {}) for p in model.parameters())


def test_activation_statistics_by_hand() -> None:
    model, x = network(), torch.randn(32, 4)
    with torch.no_grad():
        model[0].bias[:2] = -100  # two of the six units are dead
    with hooks.activation_statistics(model) as layers:
        assert count(model) == 3
        model(x)
    h = model[0](x)
    assert list(layers) == ["0", "1", "2"]
    assert layers["0"].mean == pytest.approx(h.mean().item(), rel=1e-5)
    assert layers["0"].std == pytest.approx(h.std(correction=0).item(), rel=1e-5)
    assert layers["1"].mean == pytest.approx(h.relu().mean().item(), rel=1e-5)
    assert layers["1"].dead == pytest.approx((h <= 0).all(dim=0).float().mean().item())
    assert layers["1"].dead == pytest.approx(2 / 6)
    assert layers["2"].dead == pytest.approx((model(x) <= 0).all(dim=0).float().mean().item())
    assert count(model) == 0


def test_a_channel_is_dead_only_if_it_is_so_everywhere() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x[1, 0, 3, 3] = 1
    x[:, 1] = -1
    assert hooks.statistics(x).dead == pytest.approx(2 / 3)


def test_gradient_norms_are_of_this_backward_pass_alone() -> None:
    model, x, y = network(), torch.randn(8, 4), torch.randint(3, (8,))

    def loss() -> Tensor:
        return F.cross_entropy(model(x), y)

    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = dict(zip(names, torch.autograd.grad(loss(), parameters), strict=True))
    hidden = model[1](model[0](x)).detach().requires_grad_()
    z = model[2](hidden)
    dz, dh = torch.autograd.grad(F.cross_entropy(z, y), (z, hidden))
    loss().backward()  # leaves something in .grad, which must not be counted
    with hooks.gradient_norms(model) as layers:
        assert count(model) == 3 + 4
        loss().backward()
    assert sorted(layers) == ["0", "1", "2"]
    assert layers["2"].output == pytest.approx(dz.norm().item(), rel=1e-5)
    assert layers["1"].output == pytest.approx(dh.norm().item(), rel=1e-5)
    for name, gradient in expected.items():
        layer, _, parameter = name.partition(".")
        assert layers[layer].parameters[parameter] == pytest.approx(
            gradient.norm().item(), rel=1e-5
        )
    assert layers["1"].parameters == {}
    assert count(model) == 0


def test_a_backward_pass_after_the_block_is_not_recorded() -> None:
    model = network()
    with hooks.gradient_norms(model) as layers:
        loss = model(torch.randn(8, 4)).sum()
    loss.backward()
    assert layers == {}


def test_layers_that_work_in_place_can_be_watched() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True)), torch.randn(8, 4)
    with hooks.gradient_norms(model) as layers:
        model(x).sum().backward()
    alive = (nn.functional.linear(x, model[0].weight, model[0].bias) > 0).float()
    assert layers["0"].output == pytest.approx(alive.norm().item(), rel=1e-5)


def test_hooks_leave_the_numbers_alone() -> None:
    model, x = network(), torch.randn(8, 4)
    expected = torch.autograd.grad(model(x).pow(2).sum(), list(model.parameters()))
    with hooks.gradient_norms(model), hooks.activation_statistics(model):
        got = torch.autograd.grad(model(x).pow(2).sum(), list(model.parameters()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["activation_statistics", "gradient_norms"])
def test_hooks_are_removed_after_an_exception(name: str) -> None:
    model = network()
    with pytest.raises(RuntimeError, match="shapes"), getattr(hooks, name)(model):
        model(torch.zeros(2, 5))
    assert count(model) == 0


def test_the_features_of_the_cnn_by_the_name_of_their_layer() -> None:
    torch.manual_seed(0)
    model, x = CNN(width=4).eval(), torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(hooks.extract(model, "embed", x), model.features(x))
    assert count(model) == 0
    with hooks.outputs_of(model, "head") as outputs:
        logits = [model(x), model(2 * x)]
    assert len(outputs) == 2
    for a, b in zip(outputs, logits, strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad


def test_an_unknown_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no layer 'embd'; did you mean 'embed'"):
        hooks.extract(CNN(width=4), "embd", torch.rand(2, 1, 28, 28))
