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


@pytest.mark.exercise("evaluate.standardise")
@pytest.mark.parametrize("value", [12345.678, -12345.678, 0.0, 1e-3])
def test_a_column_that_is_constant_to_rounding_is_only_centred(value: float) -> None:
    """In float32 the mean of 1,000 equal numbers is not that number, nor the deviation 0."""
    a, b = evaluate.standardise(torch.full((1000, 1), value), torch.tensor([[value + 3.0]]))
    assert a.abs().max() < 2e-6 * (1 + abs(value))
    assert b.item() == pytest.approx(3, abs=0.01)


@pytest.mark.exercise("evaluate.standardise")
@pytest.mark.parametrize("mean", [0.0, 9.0, -9.0])
@pytest.mark.parametrize("share", [0.9, 1.1])
def test_what_constant_means(mean: float, share: float) -> None:
    """On both sides of the limit, 1e-6 (1 + |mean|); of two rows, half their distance deviates."""
    deviation = share * 1e-6 * (1 + abs(mean))
    train = torch.tensor([[mean - deviation], [mean + deviation]], dtype=torch.float64)
    test = torch.tensor([[mean + 5 * deviation]], dtype=torch.float64)
    a, b = evaluate.standardise(train, test)
    by = deviation if share > 1 else 1.0
    assert a.flatten().tolist() == pytest.approx([-deviation / by, deviation / by], rel=1e-6)
    assert b.item() == pytest.approx(5 * deviation / by, rel=1e-6)


@pytest.mark.exercise("evaluate.standardise")
@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (2, 1), (5, 5)])
def test_standardise_makes_new_tensors_of_the_same_dtype(rows: int, columns: int) -> None:
    for dtype in (torch.float32, torch.float64):
        train, test = (
            2 + clouds(rows, columns)[0].to(dtype),
            clouds(4, columns, seed=1)[0].to(dtype),
        )
        before = train.clone(), test.clone()
        a, b = evaluate.standardise(train, test)
        scaler = StandardScaler().fit(train.double().numpy())
        for ours, raw in ((a, train), (b, test)):
            assert ours.dtype == dtype
            expected = scaler.transform(raw.double().numpy())
            np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(train, before[0])
        assert torch.equal(test, before[1])


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


@pytest.mark.exercise("evaluate.knn_scores")
def test_a_vote_at_a_low_temperature_does_not_overflow() -> None:
    """e^(1 / 0.01) is no float32; the nearest takes all, and equally near ones share."""
    train, query = torch.eye(3), torch.tensor([[2.0, 0.0, 0.0]])
    for temperature in (0.01, 1e-6):
        scores = evaluate.knn_scores(train, torch.arange(3), query, 3, 3, temperature)
        assert scores.tolist() == [pytest.approx([1, 0, 0], abs=1e-30)]
        y = torch.tensor([0, 1, 1, 1])
        scores = evaluate.knn_scores(torch.ones(4, 3), y, query, 3, 4, temperature)
        assert scores.tolist() == [pytest.approx([0.25, 0.75, 0])]


@pytest.mark.exercise("evaluate.knn_scores")
def test_the_gradient_of_the_votes_is_what_finite_differences_measure() -> None:
    train, y = clouds(6, 3)
    leaves = [x.double().requires_grad_() for x in (train, clouds(2, 3, seed=1)[0])]

    def votes(train: Tensor, queries: Tensor) -> Tensor:
        return evaluate.knn_scores(train, y, queries, 4, 4, 0.5)

    assert torch.autograd.gradcheck(votes, leaves)


@pytest.mark.exercise("evaluate.standardise")
def test_the_gradient_of_standardise_is_what_finite_differences_measure() -> None:
    leaves = [clouds(n, 3, seed=n)[0].double().requires_grad_() for n in (5, 2)]
    assert torch.autograd.gradcheck(evaluate.standardise, leaves)


@pytest.mark.exercise("evaluate.knn_scores")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("queries", [1, 5])
def test_knn_votes_have_the_dtype_and_the_device_of_the_queries(
    dtype: torch.dtype, queries: int
) -> None:
    """Here the default device is another: what is made without `device=` does not fit."""
    (train, y), test = clouds(30), clouds(queries, seed=1)[0].to(dtype)
    given = train.to(dtype), y, test
    before = [x.clone() for x in given]
    with torch.device("meta"):
        scores = evaluate.knn_scores(*given, 7, 9, 0.2)
    assert (scores.shape, scores.dtype, scores.device) == ((queries, 7), dtype, test.device)
    assert all(map(torch.equal, given, before)), "the arguments are left alone"
    peer = KNeighborsClassifier(
        9, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.2)
    ).fit(train.double().numpy(), y.numpy())
    expected = peer.predict_proba(test.double().numpy())
    np.testing.assert_allclose(scores[:, :4], expected, atol=1e-4)
    assert not scores[:, 4:].any(), "classes that no neighbour has"


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
