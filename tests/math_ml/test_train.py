"""The week as a person runs it."""

from typing import Any

import numpy as np
import pytest

from labkit import UsageError
from labkit.data import Dataset, ImageData, load
from labkit.data.kinds import Split
from math_ml import tables
from math_ml.train import Config, _rows, train

FIGURES = {
    "accuracy", "calibration", "condition", "confusion", "descent", "diabetes_paths",
    "loss", "loss_surface", "newton", "weights",
}  # fmt: skip


def test_smoke_learns_from_all_its_tables_and_draws(lab_run: Any) -> None:
    """Asked for the wines, which are not here, it goes on without them and says so once."""
    done = lab_run("math_ml", "+size=smoke", "wine=true")
    assert done.returncode == 0, done.output
    assert done.output.count("without the wines") == 1
    metrics = done.record["metrics"]
    assert metrics["test_accuracy"] > 94
    assert 0.35 < metrics["diabetes_r2"] < 0.65
    assert 0 < metrics["lasso_nonzeros"] < 10
    assert metrics["cancer_accuracy"] > 94
    assert metrics["cancer_ece"] < 0.08
    assert 0 < metrics["gd_excess"] < 2
    assert metrics["noise_cv_r2"] < 0
    assert "wine_r2" not in metrics
    assert {p.stem for p in (done.dir / "samples").iterdir()} == FIGURES
    assert {d["name"] for d in done.record["data"]["also"]} == {"diabetes", "breast_cancer"}
    assert done.record["data"]["name"] == "digits"


def test_resumes_to_the_same_bits(resume_check: Any) -> None:
    """Two folds, as what is resumed is the training, and all the tables come after it."""
    resume_check("math_ml", "+size=smoke", "epochs=3", "folds=2")


def test_bad_settings_exit_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["+size=smoke", "folds=1"]) == 2
    assert "folds must be from 2 to 100, got 1; try folds=10" in capsys.readouterr().err


def test_a_set_that_is_no_set_of_images_is_refused() -> None:
    class Run:
        """What the week asks of a run before anything else: its data."""

        def data(self, name: str, kind: type[Dataset]) -> Dataset:
            return load(name, kind=kind)

    with pytest.raises(UsageError, match="diabetes is a table, and this week wants a set of imag"):
        train.program.train(Config(data="diabetes"), Run())  # type: ignore[arg-type]


def test_a_channel_of_one_value_becomes_zero() -> None:
    """And not 0/0; the other channel is standardised as it always is."""
    images = np.full((4, 2, 3, 3), 7, np.uint8)
    images[:, 1] = np.arange(36).reshape(4, 3, 3)
    split = Split(images, np.array([0, 1, 0, 1]))
    rows = _rows(ImageData("flat", "made here", split, split, ("a", "b")), images)
    assert np.abs(rows[:, :9]).max() < 1e-6
    pixels = np.arange(36.0)
    expected = ((pixels - pixels.mean()) / pixels.std()).reshape(4, 9)
    np.testing.assert_allclose(rows[:, 9:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": 0.0}, "lr must be > 0, got 0.0; try lr=0.1"),
        ({"l2": -1.0}, "l2 must be 0 or more, got -1.0; try l2=0.001"),
        ({"gd_steps": 0}, "gd_steps must be > 0, got 0; try gd_steps=100"),
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


def test_descent_excess_by_plain_steps_and_numpys_least_squares() -> None:
    data = load("diabetes")
    ours, condition = tables.descent_excess(data, "standardized", steps=30, step_size=1.5)
    x = (data.x_train - data.x_train.mean(axis=0)) / data.x_train.std(axis=0)
    y = data.y_train - data.y_train.mean()
    assert condition == pytest.approx(np.linalg.cond(x) ** 2, rel=1e-6)
    rate, w = 1.5 * len(y) / np.linalg.norm(x, 2) ** 2, np.zeros(10)
    least = np.mean((y - x @ np.linalg.lstsq(x, y)[0]) ** 2)
    for step in range(31):
        loss = np.mean((y - x @ w) ** 2)
        assert ours[step] == pytest.approx(100 * (loss / least - 1), rel=1e-5)
        w -= rate * x.T @ (x @ w - y) / len(y)
