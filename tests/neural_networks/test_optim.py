"""Update rules against torch.optim, over several steps, in both precisions."""

from typing import Any

import numpy as np
import pytest
import torch

from neural_networks import optim

SHAPES = {"W": (4, 3), "b": (3,), "kernel": (2, 1, 3, 2), "scale": (1,)}
RATES = [0.1, 0.05, 0.2, 0.1, 0.01, 0.3]  # a schedule: momentum must not have the rate in it


SGD_STATE, ADAM_STATE = {"v": "momentum_buffer"}, {"m": "exp_avg", "v": "exp_avg_sq"}


def follow(make: Any, make_torch: Any, state: dict[str, str], dtype: type) -> None:
    """Run both optimisers side by side on the same gradients, and compare after every step: the
    parameters, and of the state what torch keeps under the names given.
    """
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    arrays = dict(params)
    twins = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in params.items()}
    ours, oracle = make(params), make_torch(twins.values())
    moments = {key: dict(ours.state[key]) for key in state}
    tolerance = 1e-12 if dtype is np.float64 else 2e-6
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
            np.testing.assert_allclose(w, twins[name].detach(), rtol=tolerance, atol=tolerance)
            for key, theirs in state.items():
                moment, peer = ours.state[key][name], oracle.state[twins[name]][theirs]
                assert moment is moments[key][name], "a checkpoint holds on to the array itself"
                assert moment.dtype == dtype
                np.testing.assert_allclose(moment, peer, rtol=tolerance, atol=tolerance)


@pytest.mark.exercise("optim.SGD.step")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.0},
        {"momentum": 0.0, "weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.6, "nesterov": True},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "weight_decay": 1.5, "nesterov": True},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
def test_sgd_is_torchs(options: dict[str, Any], dtype: type):
    follow(
        lambda params: optim.SGD(params, **options),
        lambda params: torch.optim.SGD(params, lr=1.0, **options),
        SGD_STATE if options["momentum"] else {},  # without momentum torch keeps none
        dtype,
    )


@pytest.mark.exercise("optim.SGD.step")
def test_velocity_is_changed_in_place_and_remembers_the_gradient_without_momentum_too():
    """η = 0 leaves the weights, and v takes the gradient all the same."""
    for momentum, second in ((0.0, 3.0), (0.5, 4.0)):
        params = {"w": np.ones(2)}
        opt = optim.SGD(params, momentum)
        velocity = opt.state["v"]["w"]
        opt.step({"w": np.full(2, 2.0)}, lr=0.0)
        opt.step({"w": np.full(2, 3.0)}, lr=0.0)
        assert opt.state["v"]["w"] is velocity
        np.testing.assert_array_equal(velocity, [second, second])
        np.testing.assert_array_equal(params["w"], [1, 1])


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
        ADAM_STATE,
        dtype,
    )


@pytest.mark.exercise("optim.Adam.step")
def test_adam_counts_its_steps_once_for_all_parameters_and_goes_on_from_a_checkpoints():
    """t is in the state: at t = 1000 a step is the one of the formula with t = 1001."""
    params = {"w": np.array([1.0]), "b": np.array([2.0])}
    opt = optim.Adam(params, (0.9, 0.99), eps=1e-3)
    opt.state |= {"t": 1000, "m": {"w": np.array([0.5]), "b": np.array([0.1])},
                  "v": {"w": np.array([0.04]), "b": np.array([0.09])}}  # fmt: skip
    opt.step({"w": np.array([-1.0]), "b": np.array([3.0])}, lr=0.1)
    assert opt.state["t"] == 1001
    for name, w, m, v, g in (("w", 1.0, 0.5, 0.04, -1.0), ("b", 2.0, 0.1, 0.09, 3.0)):
        m_hat = (0.9 * m + 0.1 * g) / (1 - 0.9**1001)
        v_hat = (0.99 * v + 0.01 * g * g) / (1 - 0.99**1001)
        assert params[name][0] == pytest.approx(w - 0.1 * m_hat / (v_hat**0.5 + 1e-3), rel=1e-12)


@pytest.mark.exercise("optim.Adam.step")
@pytest.mark.filterwarnings("error")
def test_adam_of_a_gradient_of_zero_only_decays():
    for weight_decay, expected in ((0.0, 3.0), (0.5, 3.0 * (1 - 0.1 * 0.5))):
        params = {"w": np.array([3.0])}
        optim.Adam(params, weight_decay=weight_decay).step({"w": np.zeros(1)}, lr=0.1)
        assert params["w"][0] == pytest.approx(expected, rel=1e-15)


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
