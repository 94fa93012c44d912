"""The week as a person runs it, at size smoke."""

import pytest

from pytorch_mastery.train import train


def test_smoke_learns_the_digits_and_publishes(lab_run) -> None:
    done = lab_run.once("pytorch_mastery", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record["metrics"]["test_accuracy"] > 90
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert {"training.png", "learning_rate.png"} <= names
    folder = done.home / "artifacts" / "pytorch_mastery" / "smoke-digits"
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["config.json", "model.safetensors", "record.json"]


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check("pytorch_mastery", "+size=smoke", "steps=20")


@pytest.mark.parametrize(
    ("word", "message"),
    [("lr=-1", "lr must be > 0"), ("shift=20", "shift must be from 0 to 13")],
)
def test_settings_out_of_range_are_refused(
    word: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", word]) == 2
    assert message in capfd.readouterr().err
