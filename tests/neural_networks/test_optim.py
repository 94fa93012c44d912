"""Update rules against torch.optim, over several steps, in both precisions."""

from typing import Any

import numpy as np
import pytest
import torch

from neural_networks import optim

SHAPES = {"W": (4, 3), "b": (3,)}
RATES = [0.1, 0.05, 0.2, 0.1, 0.01, 0.3]  # a schedule: momentum must not have the rate in it


def follow(make: Any, make_torch: Any, dtype: type = np.float64) -> None:
    """Run both optimisers side by side on the same gradients, and compare after every step."""
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    arrays = dict(params)
    twins = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in params.items()}
    ours, oracle = make(params), make_torch(twins.values())
    for lr in RATES:
        grads = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
        for name, twin in twins.items():
            twin.grad = torch.tensor(grads[name])
        for group in oracle.param_groups:
            group["lr"] = lr
        oracle.step()
        ours.step(grads, lr)
        for name, w in params.items():
            assert w.dtype == dtype
            assert w is arrays[name], "parameters must be changed in place"
            tolerance = 1e-12 if dtype is np.float64 else 2e-6
            np.testing.assert_allclose(w, twins[name].detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.exercise("optim.SGD.step")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.0},
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_sgd_is_torchs(options: dict[str, Any], dtype: type):
    follow(
        lambda params: optim.SGD(params, **options),
        lambda params: torch.optim.SGD(params, lr=1.0, **options),
        dtype,
    )


@pytest.mark.exercise("optim.Adam.step")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_is_torchs(weight_decay: float, dtype: type):
    """eps is large here, so that it matters where it stands."""
    follow(
        lambda params: optim.Adam(params, (0.8, 0.95), eps=1e-2, weight_decay=weight_decay),
        lambda params: torch.optim.AdamW(
            params, lr=1.0, betas=(0.8, 0.95), eps=1e-2, weight_decay=weight_decay
        ),
        dtype,
    )


@pytest.mark.exercise("optim.Adam.step")
def test_first_step_of_adam_has_the_size_of_the_learning_rate():
    """Bias correction makes m̂ = g and √v̂ = |g| at t = 1, whatever the size of g."""
    params = {"w": np.array([1.0, 1.0, 1.0])}
    optim.Adam(params).step({"w": np.array([1e-4, -2.0, 3e5])}, lr=0.1)
    np.testing.assert_allclose(params["w"], [0.9, 1.1, 0.9], rtol=1e-4)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_no_buffer_is_shared(kind: Any):
    """Parameters, state and scratch are arrays of their own, of one dtype."""
    params = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    opt = kind(params)
    buffers = [b for s in opt.state.values() if isinstance(s, dict) for b in s.values()]
    arrays = [*params.values(), *buffers, *opt._scratch.values()]
    assert len(arrays) == len(params) * (3 if kind is optim.SGD else 4)
    for i, a in enumerate(arrays):
        assert a.dtype == np.float32
        assert not any(np.shares_memory(a, b) for b in arrays[i + 1 :])


def test_warmup_linear_rises_then_falls_to_zero():
    rates = [optim.warmup_linear(step, 10, 4) for step in range(10)]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8, 1, 5 / 6, 4 / 6, 0.5, 2 / 6, 1 / 6])
    assert optim.warmup_linear(10, 10, 4) == 0
    assert optim.warmup_linear(0, 10, 0) == 1
