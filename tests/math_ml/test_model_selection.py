"""Splits, folds and scaling against scikit-learn, and what leaking does."""

import sys
import warnings
from types import ModuleType

import numpy as np
import pytest
from sklearn.linear_model import Lasso, LinearRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from labkit import bugs
from labkit.data import load
from math_ml import checks, lasso, linear, model_selection, tables


@pytest.mark.exercise("model_selection.Standardizer.fit")
def test_standardizer_is_scikit_learns():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 3)) * [1, 100, 1e-3] + [5, -3, 0]
    kept, peer = x.copy(), StandardScaler().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no column is constant: there is nothing to warn of
        scale = model_selection.Standardizer.fit(x)
    assert isinstance(scale, model_selection.Standardizer)
    np.testing.assert_allclose(scale.mean, peer.mean_, rtol=1e-12)
    np.testing.assert_allclose(scale.std, peer.scale_, rtol=1e-12)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.exercise("model_selection.Standardizer.fit")
def test_a_column_of_one_value_is_told_of_and_gets_the_deviation_one():
    x = np.array([[1.0, 0.1, 3.0], [2.0, 0.1, 5.0], [4.0, 0.1, 1.0]])
    x = np.vstack([x] * 10)  # the deviation of thirty 0.1 is not 0 when rounded
    with pytest.warns(checks.ConstantColumnWarning, match="1"):
        scale = model_selection.Standardizer.fit(x)
    assert scale.std[1] == 1
    assert scale.mean[1] == pytest.approx(0.1, rel=1e-12)
    assert (scale.std[[0, 2]] > 1).all()


@pytest.mark.exercise("model_selection.Standardizer.fit")
@pytest.mark.parametrize(
    "x", [[[7.0, 0.0, -1e300]], [[7, 0, -5]], [[0.3, 0.0, 2e-300]] * 7], ids=["row", "whole", "7"]
)
def test_one_warning_names_all_columns_of_one_value(x: list[list[float]]):
    """A single row is constant throughout; a column of zeros has nothing to be divided by."""
    with pytest.warns(checks.ConstantColumnWarning) as caught:
        scale = model_selection.Standardizer.fit(np.array(x))
    assert len(caught) == 1
    assert all(str(column) in str(caught[0].message) for column in (0, 1, 2))
    np.testing.assert_array_equal(scale.std, np.ones(3))
    np.testing.assert_allclose(scale.mean, x[0], rtol=1e-12)


def test_the_warning_and_the_error_say_where():
    x = np.array([[1.0, 4.0], [2.0, 4.0]])
    with pytest.warns(checks.ConstantColumnWarning, match=r"columns \[1\] have one value only"):
        model_selection.Standardizer.fit(x)
    with pytest.raises(ValueError, match=r"x\[1, 0\] is nan"):
        model_selection.Standardizer.fit(np.array([[1.0], [np.nan], [2.0]]))


@pytest.mark.exercise("model_selection.Standardizer.fit")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value: float):
    with pytest.raises(ValueError):
        model_selection.Standardizer.fit(np.array([[1.0], [value], [2.0]]))


@pytest.mark.exercise("model_selection.Standardizer.fit")
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_standardizer_computes_in_float64_and_makes_its_own_class(dtype: type):
    class Mine(model_selection.Standardizer):
        pass

    x = np.array([[1, 300], [3, 100], [4, 200]], dtype)
    scale = Mine.fit(x)
    assert type(scale) is Mine
    assert scale.mean.dtype == scale.std.dtype == np.float64
    np.testing.assert_allclose(scale.mean, [8 / 3, 200], rtol=1e-15)
    np.testing.assert_allclose(scale.std, [(14 / 9) ** 0.5, (20_000 / 3) ** 0.5], rtol=1e-15)
    assert x.dtype == dtype


@pytest.mark.exercise("model_selection.Standardizer.fit")
@pytest.mark.filterwarnings("error")
def test_standardizer_of_columns_whose_sums_or_squares_overflow_or_vanish():
    """A deviation of 0 or infinity would make NaN or 0 of the whole column."""
    x, sizes = (
        np.array([1.0, 2.0, 4.0, 7.0, 7.0])[:, None],
        np.array([2e307, 1e-300, 1e200, -1e200, -1.0]),
    )
    scale = model_selection.Standardizer.fit(x * sizes)
    np.testing.assert_allclose(scale.mean, 4.2 * sizes, rtol=1e-14)
    np.testing.assert_allclose(scale.std, x.std() * np.abs(sizes), rtol=1e-14)
    mixed = np.array([[1e200, -1e200], [1e-3, -1e-3], [2.0, 5.0]])  # of unlike sizes and signs
    scale = model_selection.Standardizer.fit(mixed)
    np.testing.assert_allclose(scale.mean, [1e200 / 3, -1e200 / 3], rtol=1e-14)
    np.testing.assert_allclose(scale.std, [2**0.5 / 3 * 1e200] * 2, rtol=1e-14)


def test_standardizer_scales_other_rows_by_what_it_saw():
    scale = model_selection.Standardizer(np.array([1.0, 2.0]), np.array([2.0, 0.5]))
    np.testing.assert_allclose(scale(np.array([[3.0, 2.0], [1, 3]])), [[1, 0], [0, 2]])


@pytest.mark.exercise("model_selection.k_fold")
@pytest.mark.parametrize(("rows", "folds"), [(10, 2), (23, 5), (7, 7), (2, 2), (103, 10)])
def test_every_row_is_validated_once(rows: int, folds: int):
    pairs = model_selection.k_fold(rows, folds, seed=3)
    assert len(pairs) == folds
    assert sorted(np.concatenate([valid for _, valid in pairs])) == list(range(rows))
    values = np.arange(rows)
    for train, valid in pairs:
        assert sorted([*values[train], *values[valid]]) == list(range(rows))
    sizes = [len(valid) for _, valid in pairs]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.exercise("model_selection.k_fold")
def test_folds_are_shuffled_by_their_seed():
    first, again, other = (model_selection.k_fold(100, 4, seed) for seed in (1, 1, 2))
    for (_, a), (_, b) in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(first[0][1]) != sorted(other[0][1])
    assert max(np.diff(np.sort(first[0][1]))) > 1, "a block of neighbours"


@pytest.mark.exercise("model_selection.k_fold")
def test_folds_have_the_seed_0_by_default_and_a_generator_of_their_own():
    np.random.seed(5)  # noqa: NPY002 - what must not be drawn from
    default, seeded = model_selection.k_fold(50, 3), model_selection.k_fold(50, 3, 0)
    for (_, a), (_, b) in zip(default, seeded, strict=True):
        np.testing.assert_array_equal(a, b)
    drawn = np.random.random()  # noqa: NPY002
    assert drawn == np.random.RandomState(5).random_sample()


@pytest.mark.exercise("model_selection.k_fold")
@pytest.mark.parametrize("folds", [1, 11, 0, -3])
def test_a_number_of_folds_that_cannot_be_is_refused(folds: int):
    with pytest.raises(ValueError):
        model_selection.k_fold(10, folds)


def test_the_refusal_names_the_rows():
    with pytest.raises(ValueError, match="from 2 to the 10 rows there are, got 11"):
        model_selection.k_fold(10, 11)


def test_train_valid_split_parts_the_rows():
    train, valid = model_selection.train_valid_split(50, 0.2, seed=1)
    assert len(valid) == 10
    assert sorted([*train, *valid]) == list(range(50))
    with pytest.raises(ValueError, match="at least one on either side"):
        model_selection.train_valid_split(5, 0.01)


def test_out_of_fold_predictions_are_scikit_learns_pipeline():
    """Scaling inside the folds: the same as a pipeline, and not the same as scaling before."""
    data = load("diabetes")
    x, y = data.x_train[:60], data.y_train[:60]
    pairs = model_selection.k_fold(60, 5)
    fit = model_selection.standardized(lambda x, y: linear.fit_ridge(x, y, 20.0).predict)
    ours = model_selection.out_of_fold(fit, x, y, pairs)
    theirs = cross_val_predict(make_pipeline(StandardScaler(), Ridge(20.0)), x, y, cv=pairs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)
    before = cross_val_predict(Ridge(20.0), StandardScaler().fit_transform(x), y, cv=pairs)
    assert np.abs(ours - before).max() > 1e-3


def test_fold_errors_and_the_choice_among_them():
    data = load("diabetes")
    x, y = data.x_train, data.y_train
    pairs = model_selection.k_fold(len(y), 5)
    fits = [lambda x, y, a=a: linear.fit_ridge(x, y, a).predict for a in (1e6, 1.0)]
    errors = model_selection.fold_errors(fits, x, y, pairs)
    assert errors.shape == (2, 5)
    for train, valid in pairs[:1]:
        peer = Ridge(1.0).fit(x[train], y[train]).predict(x[valid])
        assert errors[1, 0] == pytest.approx(np.mean((peer - y[valid]) ** 2), rel=1e-7)
    assert model_selection.best_of(errors) == 1
    close = np.array([[3.0, 5.0, 4.0], [3.0, 5.2, 3.0], [2.9, 4.9, 3.0]])
    assert model_selection.best_of(close) == 2
    assert model_selection.best_of(close, one_standard_error=True) == 0


def test_a_fit_that_failed_on_a_fold_is_never_chosen():
    """argmin takes the first NaN for the least; and a single fold has no standard error."""
    errors = np.array([[1.0, np.nan], [3.0, 4.0], [np.inf, 1.0], [2.0, 4.0]])
    assert model_selection.best_of(errors) == 3
    with pytest.raises(ValueError, match="every fit has an error that is not finite"):
        model_selection.best_of(errors[[0, 2]])
    with pytest.raises(ValueError, match="take two folds or more"):
        model_selection.best_of(np.array([[2.0], [1.0]]), one_standard_error=True)


def test_r2_is_scikit_learns():
    y, p = np.array([1.0, 2, 4, 8]), np.array([1.5, 2, 3, 9])
    assert model_selection.r2(y, p) == pytest.approx(r2_score(y, p))
    for size in (1e200, 1e-200):  # squares overflow, or vanish
        assert model_selection.r2(y * size, p * size) == pytest.approx(r2_score(y, p))
    for same in (np.ones(3), np.full(10, 0.1)):  # the mean of ten 0.1 is not 0.1 to the last bit
        with pytest.raises(ValueError, match="all of them are equal"):
            model_selection.r2(same, np.zeros(len(same)))


def test_most_correlated_finds_them_whatever_their_scale():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6)) * [1, 1e-4, 1e3, 1, 1, 0] + 5
    y = 1e4 * (x[:, 1] - 5) - 2 * x[:, 3]
    assert set(model_selection.most_correlated(x, y, 2)) == {1, 3}
    sizes = [1, 1e-200, 1, 1e200, 1, 1]  # squares overflow, or vanish
    assert set(model_selection.most_correlated((x - 5) * sizes, y, 2)) == {1, 3}


def test_a_column_of_one_value_correlates_with_nothing():
    """Less its mean it is rounding error, which must not be scaled up to a correlation of 1."""
    x = np.column_stack([np.full(30, 0.1), np.arange(30.0)])
    y = 5 * (x[:, 0] - x[:, 0].mean()) + np.cos(np.arange(30.0)) * 1e-3
    assert model_selection.most_correlated(x, y, 1) == [1]


def test_the_study_of_diabetes_is_scikit_learns_at_the_chosen_alphas():
    data = load("diabetes")
    study = tables.regression(data, folds=5, seed=0)
    scaler = StandardScaler().fit(data.x_train)
    x, x_test = scaler.transform(data.x_train), scaler.transform(data.x_test)
    peers = {
        "least squares": LinearRegression(),
        "ridge": Ridge(study.ridge.alphas[study.ridge.chosen]),
        "lasso": Lasso(study.lasso.alphas[study.lasso.chosen], tol=1e-10),
    }
    for name, peer in peers.items():
        score = peer.fit(x, data.y_train).score(x_test, data.y_test)
        assert study.r2[name] == pytest.approx(score, abs=1e-4)
    assert study.nonzeros == np.count_nonzero(peers["lasso"].coef_)
    assert not study.lasso.coefs[0].any(), "the path begins at alpha_max"
    mean = study.ridge.errors.mean(axis=1)
    assert study.ridge.chosen == mean.argmin()
    pairs = model_selection.k_fold(len(data.y_train), 5, 0)
    pipe = make_pipeline(StandardScaler(), Lasso(lasso.alpha_max(x, data.y_train), tol=1e-10))
    theirs = cross_val_predict(pipe, data.x_train, data.y_train, cv=pairs)
    off = (theirs - data.y_train) ** 2
    np.testing.assert_allclose(study.lasso.errors[0].mean(), off.mean(), rtol=0.01)


def test_selection_outside_the_folds_finds_signal_in_noise(monkeypatch):
    """ESL, section 7.10.2, with scikit-learn doing the wrong way: the bug of broken_leak."""
    assert tables.noise_r2(seed=0) < 0
    bug = "tables.noise_r2: columns are chosen before the folds, from all rows"
    file, text = bugs.planted("math_ml", bug)
    wrong = ModuleType("math_ml.tables_with_a_leak")
    monkeypatch.setitem(sys.modules, wrong.__name__, wrong)  # where a dataclass looks itself up
    exec(compile(text, str(file), "exec"), wrong.__dict__)
    leaky = wrong.noise_r2(seed=0, draws=1)
    rng = np.random.default_rng((0, 7102))
    x, y = rng.standard_normal((50, 5000)), rng.standard_normal(50)
    corr = [abs(np.corrcoef(column, y)[0, 1]) for column in x.T]
    kept = x[:, np.argsort(corr)[-10:]]
    cv = KFold(10, shuffle=True, random_state=0)
    peer = r2_score(y, cross_val_predict(Ridge(1.0), kept, y, cv=cv))
    assert leaky > 0.3
    assert leaky == pytest.approx(peer, abs=0.15)
