"""Softmax regression against scikit-learn, torch's autograd and exact cases."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from labkit.data import load
from math_ml import checks, model, softmax


def batch(dtype: type = np.float64) -> tuple[model.Params, np.ndarray, np.ndarray]:
    """Fewer rows than columns, unlike both and the classes; every class not equally often."""
    rng = np.random.default_rng(0)
    params = {"W": rng.standard_normal((6, 4)), "b": rng.standard_normal(4)}
    x, labels = rng.standard_normal((5, 6)), np.array([0, 3, 3, 1, 3])
    return {k: v.astype(dtype) for k, v in params.items()}, x.astype(dtype), labels


@pytest.mark.exercise("softmax.loss_and_gradient")
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_loss_and_gradient_are_torchs(l2: float):
    params, x, labels = batch()
    kept = {k: v.copy() for k, v in params.items()}
    w, b = (torch.tensor(params[k], requires_grad=True) for k in ("W", "b"))
    z = torch.tensor(x) @ w + b
    expected = torch.nn.functional.cross_entropy(z, torch.tensor(labels)) + l2 / 2 * (w**2).sum()
    expected.backward()
    loss, grads = softmax.loss_and_gradient(params, x, labels, l2)
    assert isinstance(loss, float)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grads["W"], w.grad, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(grads["b"], b.grad, rtol=1e-10, atol=1e-14)
    for name, value in kept.items():
        np.testing.assert_array_equal(params[name], value)


@pytest.mark.exercise("softmax.loss_and_gradient")
@pytest.mark.filterwarnings("error")
def test_huge_logits_do_not_overflow():
    params = {"W": np.array([[1000.0, -1000.0, 0.0]]), "b": np.zeros(3)}
    x, labels = np.array([[1.0], [5.0], [-3.0]]), np.array([0, 1, 1])
    loss, grads = softmax.loss_and_gradient(params, x, labels)
    assert loss == pytest.approx((0 + 10_000 + 0) / 3)
    np.testing.assert_allclose(grads["b"], [1 / 3, -1 / 3, 0], atol=1e-12)


@pytest.mark.exercise("softmax.loss_and_gradient")
def test_zeros_cost_log_k_and_float32_stays():
    _, x, labels = batch(np.float32)
    params = model.init(6, 4)
    loss, grads = softmax.loss_and_gradient(params, x, labels)
    assert loss == pytest.approx(np.log(4), rel=1e-6)
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(grads["b"], [0.05, 0.05, 0.25, -0.35], atol=1e-6)


@pytest.mark.exercise("softmax.loss_and_gradient")
@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 3, 4), (5, 1, 3), (4, 2, 1)])
@pytest.mark.parametrize("integers", [np.int64, np.uint8])
def test_one_row_one_column_and_one_class(shape: tuple[int, int, int], integers: type):
    """Against torch; of a single class p is 1 and nothing is to be learned but the penalty."""
    rows, columns, classes = shape
    rng = np.random.default_rng(3)
    params = {"W": rng.standard_normal((columns, classes)), "b": rng.standard_normal(classes)}
    x, labels = rng.standard_normal((rows, columns)), rng.integers(classes, size=rows)
    kept = x.copy()
    w, b = (torch.tensor(params[k], requires_grad=True) for k in ("W", "b"))
    expected = torch.nn.functional.cross_entropy(torch.tensor(x) @ w + b, torch.tensor(labels))
    (expected + 0.35 * (w**2).sum()).backward()
    loss, grads = softmax.loss_and_gradient(params, x, labels.astype(integers), 0.7)
    assert loss == pytest.approx(expected.item() + 0.35 * (params["W"] ** 2).sum(), rel=1e-12)
    for name, twin in (("W", w), ("b", b)):
        assert grads[name].shape == params[name].shape
        np.testing.assert_allclose(grads[name], twin.grad, rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(x, kept, "x must not be changed")


@pytest.mark.exercise("softmax.loss_and_gradient")
def test_the_penalty_is_0_by_default_and_keeps_float32():
    params, x, labels = batch(np.float32)
    kept = labels.copy()
    loss, grads = softmax.loss_and_gradient(params, x, labels)
    again, penalised = softmax.loss_and_gradient(params, x, labels, 0.0)
    assert loss == again
    assert isinstance(loss, float)
    np.testing.assert_array_equal(grads["W"], penalised["W"])
    more, penalised = softmax.loss_and_gradient(params, x, labels, 0.5)
    assert isinstance(more, float)
    assert more == pytest.approx(loss + 0.25 * (params["W"] ** 2).sum(), rel=1e-6)
    assert {g.dtype for g in penalised.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(labels, kept)
    assert not any(np.shares_memory(g, params[name]) for name, g in grads.items())


@pytest.mark.exercise("softmax.loss_and_gradient")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_largest_float32_weights_make_no_nan():
    """3e38 and -3e38 lie further apart than float32 reaches, and their squares too."""
    params = {"W": np.array([[3e38, -3e38]], np.float32), "b": np.zeros(2, np.float32)}
    x = np.ones((2, 1), np.float32)
    loss, grads = softmax.loss_and_gradient(params, x, np.array([0, 0]))
    assert loss == 0
    np.testing.assert_array_equal([grads["W"][0], grads["b"]], np.zeros((2, 2)))
    loss, grads = softmax.loss_and_gradient(params, x, np.array([1, 1]))
    assert loss >= 5e38  # 6e38, or infinity
    np.testing.assert_array_equal([grads["W"][0], grads["b"]], [[1, -1], [1, -1]])


def test_momentum_is_torchs():
    params, x, labels = batch()
    twins = {k: torch.tensor(v.copy(), requires_grad=True) for k, v in params.items()}
    velocity = {k: np.zeros_like(v) for k, v in params.items()}
    oracle = torch.optim.SGD(twins.values(), lr=1.0, momentum=0.8)
    for lr in (0.1, 0.3, 0.05):
        _, grads = softmax.loss_and_gradient(params, x, labels)
        for name, twin in twins.items():
            twin.grad = torch.tensor(grads[name])
        oracle.param_groups[0]["lr"] = lr
        oracle.step()
        softmax.momentum_step(params, velocity, grads, lr, 0.8)
        for name, twin in twins.items():
            np.testing.assert_allclose(params[name], twin.detach(), rtol=1e-12)


def test_the_optimum_is_scikit_learns():
    """C = 1/(λN): scikit-learn sums over rows, here the loss is their mean."""
    data = load("digits")
    x, labels = data.train.x[:500].reshape(500, -1) / 255, data.train.y[:500]
    l2 = 0.01
    params, loss = softmax.fit_softmax(x, labels, 10, l2)
    peer = LogisticRegression(C=1 / (l2 * 500), tol=1e-10, max_iter=10_000).fit(x, labels)
    z = model.logits(params, x)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, peer.predict_proba(x), atol=1e-4)
    np.testing.assert_allclose(params["W"], peer.coef_.T, atol=1e-3)
    theirs = {"W": peer.coef_.T, "b": peer.intercept_}
    assert loss <= softmax.loss_and_gradient(theirs, x, labels, l2)[0] + 1e-9
    assert model.accuracy(params, x, labels) == pytest.approx(100 * peer.score(x, labels))


def test_bad_input_is_told_of():
    _, x, labels = batch()
    with pytest.raises(ValueError, match="labels must be from 0 to 2, got 0 to 3"):
        softmax.fit_softmax(x, labels, 3)
    with pytest.raises(ValueError, match="every label is 2: two classes or more"):
        softmax.fit_softmax(x, np.full(5, 2), 4)
    with pytest.raises(ValueError, match="labels must be integers"):
        softmax.fit_softmax(x, labels.astype(float), 4)
    with pytest.raises(ValueError, match="one label for each of the 5 rows"):
        softmax.fit_softmax(x, labels[:-1], 4)
    with pytest.raises(ValueError, match="is nan"):
        softmax.fit_softmax(np.full_like(x, np.nan), labels, 4)
    with pytest.warns(checks.ConvergenceWarning, match="after 2 steps"):
        softmax.fit_softmax(x, labels, 4, steps=2)
