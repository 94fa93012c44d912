"""The week as a person runs it, at size smoke."""

import pytest

from labkit import UsageError
from robustness import report
from robustness.settings import ExplainSettings
from robustness.train import train


def test_smoke_trains_attacks_and_explains(lab_run) -> None:
    done = lab_run.once("robustness", "+size=smoke")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["clean_accuracy"] > 85
    assert metrics["pgd_accuracy"] <= metrics["pgd_one_start_accuracy"]
    assert metrics["pgd_accuracy"] <= metrics["fgsm_accuracy"] < metrics["noise_accuracy"]
    assert metrics["apgd_accuracy"] <= metrics["pgd_subset_accuracy"] + 5
    assert metrics["unbounded_accuracy"] < 10
    assert metrics["masking_signs"] == 0
    assert metrics["certified_accuracy"] <= metrics["smoothed_accuracy"]
    assert metrics["ig_gap"] < 5
    assert metrics["ig_deletion"] < metrics["random_deletion"] / 2
    assert abs(metrics["ig_sanity"]) < 0.5
    assert "signs of masked gradients: none" in done.output
    names = {p.stem for p in (done.dir / "samples").iterdir()}
    made = {"attacked", "epsilon", "certified", "explained", "deletion", "sanity"}
    assert made | {"training", "held_out"} <= names
    assert set(done.record["notes"]["explanations"]) == {
        "gradient", "input x gradient", "integrated gradients", "SmoothGrad", "Grad-CAM", "LIME"
    }  # fmt: skip


def test_explanations_that_do_not_fit_are_refused_before_training() -> None:
    report.check((1, 8, 6), ExplainSettings(cells=6, deletions=48))
    with pytest.raises(UsageError, match="7 cells a side do not fit into 8 x 6 pixels"):
        report.check((1, 8, 6), ExplainSettings(cells=7, deletions=48))
    with pytest.raises(UsageError, match="the 48 pixels of an image; try"):
        report.check((1, 8, 6), ExplainSettings(cells=6, deletions=49))


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check(
        "robustness", "+size=smoke", "steps=12", "look_every=3", "attack.images=20",
        "attack.queries=5", "explain.images=3", "explain.samples=20", "certify.images=3",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epsilon=-0.1", "epsilon must be"),
        ("attack.steps=0", "attack.steps must be > 0, got 0"),
        ("attack.restarts=0", "attack.restarts must be > 0, got 0"),
        ("inner_size=0", "inner_size=0 attacks nothing"),
        ("certify.alpha=1", "certify.alpha must be"),
    ],
)
def test_settings_out_of_range_are_refused(
    word: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", word]) == 2
    output = capfd.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err + output.out
