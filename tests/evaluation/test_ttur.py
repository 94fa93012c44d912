"""The two time-scale rule: GANs that differ in one learning rate and in nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.ttur.train import train
from tests.conftest import Lab


def test_a_curve_for_each_ratio_and_the_gain_of_the_best(lab_run: Lab) -> None:
    words = ("steps=6", "looks=2", "samples=100", "ratios=[1.0,2.0,4.0]")
    done = lab_run("evaluation.ttur", "+size=smoke", *words)
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    rows = [row for row in done.metrics if "fid/ratio_4" in row]
    assert [row["step"] for row in rows] == [2, 5]
    metrics = done.record["metrics"]
    assert metrics["fid_ratio_4"] != pytest.approx(metrics["fid_ratio_1"], rel=1e-4)
    assert metrics["ttur_gain"] == pytest.approx(
        metrics["fid_ratio_1"] / min(v for k, v in metrics.items() if k in others(metrics))
    )
    assert (done.dir / "samples" / "ttur.png").is_file()


def test_resumes_to_the_same_bits(resume_check: Callable[..., None]) -> None:
    """Both networks and both optimisers of each GAN, and the curves so far."""
    resume_check("evaluation.ttur", "+size=smoke", "steps=6", "looks=3", "samples=60")


def others(metrics: dict[str, float]) -> set[str]:
    """All final distances but that of the first ratio."""
    return {key for key in metrics if key.startswith("fid_ratio_")} - {"fid_ratio_1"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ratios=[1.0]", "ratios= needs two different ones"),
        ("looks=100", "looks=100 is more than steps=60"),
        ("levels=5", "digits cannot be halved 5 times; try levels=2"),
        ("lr=0", "lr must be > 0, got 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    word: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["test"])
    assert train.main(["+size=smoke", word]) == 2
    assert message in capfd.readouterr().err
