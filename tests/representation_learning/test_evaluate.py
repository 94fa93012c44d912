"""Probe and neighbours against scikit-learn and brute force."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from representation_learning import evaluate


def clouds(n: int = 300, d: int = 6, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(9))
    y = torch.randint(classes, (n,), generator=generator)
    return centres[y] + torch.randn(n, d, generator=generator), y


@pytest.mark.parametrize("decay", [1e-3, 1e-1])
def test_the_probe_is_scikit_learns_logistic_regression(decay: float) -> None:
    x, y = clouds()
    probe = evaluate.fit_probe(x, y, 4, decay)
    peer = LogisticRegression(C=1 / (len(x) * decay), tol=1e-8, max_iter=10_000)
    peer.fit(x.numpy(), y.numpy())
    ours = probe.weight - probe.weight.mean(dim=0)  # softmax does not see a common shift
    np.testing.assert_allclose(ours, peer.coef_ - peer.coef_.mean(axis=0), atol=2e-3)
    assert not probe.weight.requires_grad


@pytest.mark.exercise("evaluate.standardise")
def test_standardise_is_scikit_learns_fitted_to_the_training_rows() -> None:
    train, test = clouds(50)[0], 3 + 2 * clouds(20, seed=1)[0]
    scaler = StandardScaler().fit(train.double().numpy())
    for ours, raw in zip(evaluate.standardise(train, test), (train, test), strict=True):
        np.testing.assert_allclose(ours, scaler.transform(raw.double().numpy()), atol=1e-5)


@pytest.mark.exercise("evaluate.standardise")
def test_standardise_leaves_no_nan_where_a_column_is_constant() -> None:
    train, test = torch.full((4, 2), 7.3), torch.tensor([[7.3, 8.3]])
    train[:, 1] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    a, b = evaluate.standardise(train, test)
    assert torch.equal(a[:, 0], torch.zeros(4))
    assert b[0, 0].item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(a).all()


@pytest.mark.exercise("evaluate.knn_scores")
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (7, 1.0), (300, 0.5)])
def test_knn_votes_as_scikit_learns_with_the_same_weights(k: int, temperature: float) -> None:
    train, y = clouds()
    queries, _ = clouds(40, seed=1)
    ours = evaluate.knn_scores(train, y, queries, 4, k, temperature)
    peer = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
    ).fit(train.numpy(), y.numpy())
    np.testing.assert_allclose(ours, peer.predict_proba(queries.numpy()), atol=1e-4)


@pytest.mark.exercise("evaluate.knn_scores")
def test_knn_votes_by_hand() -> None:
    """Three neighbours at cosine 1, 0.6 and 0; lengths do not count."""
    train, y = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 9.0]]), torch.tensor([0, 2, 2])
    scores = evaluate.knn_scores(train, y, torch.tensor([[5.0, 0.0]]), 3, 3, 0.5)
    w = np.exp(np.array([1.0, 0.6, 0.0]) / 0.5)
    np.testing.assert_allclose(scores[0], np.array([w[0], 0, w[1] + w[2]]) / w.sum(), rtol=1e-5)


def test_the_decay_of_the_probe_does_not_come_from_the_test_set() -> None:
    """Whatever the test labels are, the same probe is fitted: only its score changes."""
    (x, y), (x_test, y_test) = clouds(), clouds(100, seed=1)
    good, decay = evaluate.linear_probe(x, y, x_test, y_test, 4)
    bad, same = evaluate.linear_probe(x, y, x_test, (y_test + 1) % 4, 4)
    assert decay == same
    assert good > 60 > bad


def test_knn_accuracy_is_perfect_on_what_it_has_seen_with_one_neighbour() -> None:
    x, y = clouds()
    assert evaluate.knn_accuracy(x, y, x, y, 4, k=1) == 100
    assert evaluate.knn_accuracy(x, y, x, (y + 1) % 4, 4, k=1) == 0


def test_representations_are_taken_in_eval_mode_and_in_order() -> None:
    encoder = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()).train()
    x = torch.randint(0, 256, (7, 3, 2, 2), dtype=torch.uint8)
    h = evaluate.represent(encoder, x, batch_size=3)
    assert encoder.training
    torch.testing.assert_close(h, x.flatten(1) / 255 / (1 + 1e-5) ** 0.5)  # untouched statistics
    assert not h.is_inference()
