"""Evaluation mode for a while; and the parameters that are left for AdamW."""

import pytest
import torch
from torch import nn

from labkit.learning.modes import evaluating
from labkit.learning.muon import others


def test_each_module_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    model[2].eval()
    other = nn.Dropout()
    with evaluating(model, other):
        assert not any(module.training for module in (*model.modules(), *other.modules()))
        assert not model(torch.ones(3, 2)).requires_grad
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert other.training
    assert model(torch.ones(3, 2)).requires_grad


def test_also_after_an_error() -> None:
    model = nn.Dropout()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        _ = 1 / 0
    assert model.training


def test_others_are_told_by_identity() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.copy_(model[0].weight)  # equal, but another parameter
    found = others(model, [model[0].weight])
    assert [id(p) for p in found] == [id(model[0].bias), id(model[1].weight), id(model[1].bias)]
