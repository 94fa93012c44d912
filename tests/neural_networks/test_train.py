"""The week as a person runs it, and its parts together against scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit import UsageError
from labkit.data import batch_indices, load
from labkit.state import checkpoint, tracked
from neural_networks import inputs, losses, model, optim
from neural_networks.train import Config
from tests.conftest import same


def test_smoke_learns_the_digits_and_draws(lab_run: Any) -> None:
    done = lab_run.once("neural_networks", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record["metrics"]["test_accuracy"] > 95
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert names == {"loss.png", "accuracy.png", "mistakes.png", "weights.png"}
    assert {"valid/accuracy", "valid/loss"} <= done.metrics[-1].keys()


def test_resumes_to_the_same_bits(resume_check: Any) -> None:
    """Adam, whose state is SGD's and more: two moments and a count of steps."""
    resume_check("neural_networks", "+size=smoke", "epochs=2", "optimizer=adam", "lr=0.01")


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_an_optimizer_goes_on_from_a_checkpoint_to_the_same_bits(kind: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal((3, 2), np.float32) for _ in range(6)]

    def go(opt: Any, gradients: list[np.ndarray]) -> Any:
        for g in gradients:
            opt.step({"w": g.copy()}, lr=0.1)
        return opt

    whole = go(kind({"w": np.ones((3, 2), np.float32)}), grads)
    half = go(kind({"w": np.ones((3, 2), np.float32)}), grads[:3])
    checkpoint.save(tmp_path, 3, {"params": half.params, "opt": half.state})
    saved = checkpoint.load_latest(tmp_path)
    assert saved is not None
    resumed = kind({"w": np.zeros((3, 2), np.float32)})
    tracked.set_state(resumed.params, saved["params"], "params")
    tracked.set_state(resumed.state, saved["opt"], "opt")
    go(resumed, grads[3:])
    assert same(resumed.params, whole.params)
    assert same(resumed.state, whole.state)


@pytest.mark.parametrize(
    ("words", "experiment"),
    [
        (("data=digits", "shift=0", "epochs=10"), "adam"),  # the full size, which needs no GPU
        (("+size=smoke",), "lecun1998"),
    ],
)
def test_experiments_learn(lab_run: Any, words: tuple[str, ...], experiment: str) -> None:
    done = lab_run("neural_networks", *words, f"+experiment={experiment}")
    assert done.returncode == 0, done.output
    assert done.record["metrics"]["test_accuracy"] > 93


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": 0.0}, "lr must be > 0, got 0.0; try lr=0.1"),
        ({"hidden": -1}, "hidden must be > 0, got -1; try hidden=300"),
        ({"shift": -1}, "shift must be 0 or more, got -1; try shift=1"),
        ({"momentum": 1.0}, "momentum must be from 0 to below 1, got 1.0; try momentum=0.9"),
        (
            {"validation": 0.0},
            "validation must be above 0 and below 1, got 0.0; try validation=0.1",
        ),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Config(**setting)
    assert str(error.value) == message


def fit(x: np.ndarray, y: np.ndarray, epochs: int) -> dict[str, np.ndarray]:
    """Adam at a constant rate: what MLPClassifier does."""
    params = model.init(x.shape[1], 64, 10, seed=0)
    opt = optim.Adam(params)
    for step in range(epochs * (len(x) // 32)):
        batch = batch_indices(len(x), 32, step, seed=0)
        logits, hidden = model.forward(params, x[batch])
        _, dlogits = losses.cross_entropy(logits, y[batch])
        opt.step(model.backward(params, x[batch], hidden, dlogits), lr=1e-3)
    return params


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_accuracy_is_scikit_learns() -> None:
    """One network, one optimiser, one budget: on the digits the two must be as good."""
    from sklearn.neural_network import MLPClassifier

    data = load("digits")
    scale = inputs.Scaling(data.mean, data.std, "standardized")
    x, y, x_test, y_test = scale(data.train.x), data.train.y, scale(data.test.x), data.test.y
    peer = MLPClassifier((64,), alpha=0, batch_size=32, max_iter=20, n_iter_no_change=20).fit(x, y)
    logits, _ = model.forward(fit(x, y, epochs=20), x_test)
    assert (logits.argmax(axis=1) == y_test).mean() == pytest.approx(
        peer.score(x_test, y_test), abs=0.015
    )


def test_training_stays_in_float32() -> None:
    """A single float64 array would double the time of everything after it."""
    data = load("digits")
    x = inputs.Scaling(data.mean, data.std, "standardized")(data.train.x[:64])
    params = model.init(x.shape[1], 16, 10, seed=0)
    for opt in (optim.SGD(params, nesterov=True, weight_decay=0.1), optim.Adam(params)):
        logits, hidden = model.forward(params, x)
        _, dlogits = losses.cross_entropy(logits, data.train.y[:64], smoothing=0.1)
        grads = model.backward(params, x, hidden, dlogits)
        opt.step(grads, lr=0.1 * optim.warmup_linear(3, 10, 5))
        arrays = [x, logits, hidden, dlogits, *grads.values(), *params.values()]
        arrays += [a for s in opt.state.values() if isinstance(s, dict) for a in s.values()]
        assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
