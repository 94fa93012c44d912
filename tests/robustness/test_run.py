"""The week as a person runs it, at size smoke."""

import pytest

from robustness.train import train


def test_smoke_trains_and_attacks(lab_run) -> None:
    done = lab_run.once("robustness", "+size=smoke")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["clean_accuracy"] > 85
    assert metrics["pgd_accuracy"] <= metrics["fgsm_accuracy"] < metrics["clean_accuracy"]
    assert metrics["unbounded_accuracy"] < 10
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert {"attacked.png", "epsilon.png", "training.png", "held_out.png"} <= names


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check("robustness", "+size=smoke", "steps=12", "attacked=20", "queries=5")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epsilon=-0.1", "epsilon must be"),
        ("attack_steps=0", "attack_steps must be > 0, got 0"),
        ("restarts=0", "restarts must be > 0, got 0"),
        ("inner_size=0", "inner_size=0 attacks nothing"),
    ],
)
def test_settings_out_of_range_are_refused(
    word: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", word]) == 2
    assert message in capfd.readouterr().err
