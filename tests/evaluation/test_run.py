"""The week as a person runs it, at size smoke: comparing, resuming, bad words."""

from pathlib import Path

import pytest
from PIL import Image

from evaluation.train import train
from tests.conftest import Lab


def test_smoke_compares_measures_and_draws(lab_run: Lab) -> None:
    done = lab_run.once("evaluation", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    m = done.record["metrics"]
    models = ["vae", "gan", "ddpm", "flow"]
    assert m["fid_ratio"] == pytest.approx(min(m[f"fid_{n}"] for n in models) / m["fid_real"])
    assert m["frechet_error"] < 1e-6
    assert m["fid_copies"] < m["fid_collapse"] < m["fid_noise"], "each is worse than the one before"
    assert m["fid_low_copies"] < m["fid_copies"] < m["fid_high_copies"]
    assert abs(m["fid_infinity_real"]) < 0.3 * m["fid_real"], "most of it was bias"
    assert m["recall_collapse"] < 0.8 < m["precision_collapse"]
    assert m["copied_copies"] == 100
    assert m["copied_noise"] < 5
    assert m["copying_z_copies"] < -3 < 3 < m["copying_z_noise"]
    assert m["two_sample_noise"] > 0.75
    assert 1 <= m["inception_score_copies"] <= 10
    notes = done.record["notes"]
    assert notes["extractor"] == "classifier of week 3, not trained on digits"
    assert set(notes["seconds_per_1000"]) == set(models)
    assert all(notes["seconds_per_1000"][name] > 0 for name in models)
    table = (done.dir / "comparison.md").read_text()
    assert "digits, 300 images each" in table
    assert table.count("\n| ") == 7 + len(notes["seconds_per_1000"])
    for name in ("samples", "neighbours", "bias"):
        assert Image.open(done.dir / "samples" / f"{name}.png").width > 300


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check(
        "evaluation", "+size=smoke", "models=[ddpm]", "controls=[noise,copies]",
        "measure.metrics=[fid,fid_infinity,kid]",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("models=[]", "models= names none; try models=[ddpm]"),
        ("models=[dpm]", "'dpm' is not a known model; did you mean ddpm?"),
        ("models=[runs/nowhere]", "runs/nowhere is not the folder of a finished run"),
        ("controls=[blurr]", "controls: 'blurr' is not one of copies"),
        ("samples=50", "50 images and 64 features: with so few the covariance is singular"),
        ("samples=4", "samples must be 8 or more, got 4"),
        ("measure.metrics=[fdi]", "metrics: 'fdi' is not known; did you mean fid?"),
        ("measure.k_precision=300", "k_precision=300: so many neighbours need more than 300"),
        ("measure.draws=0", "measure.draws must be > 0, got 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, word: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", word]) == 2
    output = capfd.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err + output.out


@pytest.mark.parametrize("module", ["evaluation.train", "evaluation.score"])
def test_help_loads_nothing_heavy(lab_run: Lab, module: str) -> None:
    process = lab_run.start("-X", "importtime", "-m", module, "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "usage:" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert "labkit.config" in imported
    assert not {"torch", "matplotlib", "hydra", "scipy"} & imported
