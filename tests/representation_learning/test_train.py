"""The week as a person runs it, at size smoke; and what the records say about the methods."""

import json
import statistics
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURES = {
    "simclr": {"training", "shape", "views", "neighbours", "map"},
    "autoencoder": {"training", "reconstructions", "neighbours", "map"},
    "supervised": {"training", "views", "neighbours", "map"},
    "random": {"neighbours", "map"},
    "pixels": {"neighbours", "map"},
}


@pytest.mark.parametrize("method", list(PICTURES))
def test_smoke_measures_every_method(lab_run, method: str) -> None:
    done = lab_run("representation_learning", "+size=smoke", f"method={method}", "steps=20")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert 0 < metrics["probe_accuracy"] <= 100
    assert ("train_loss" in metrics) == (method not in ("random", "pixels"))
    assert {p.stem for p in (done.dir / "samples").iterdir()} == PICTURES[method]


def test_smoke_learns_without_labels(lab_run) -> None:
    """Far from chance, which is a loss of ln(2 N - 1) = 4.84 for N = 64, and 0.8 % found."""
    done = lab_run("representation_learning", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.metrics[0]["train/loss"] > 4.5
    assert done.record["metrics"]["train_loss"] < 4.4
    assert done.record["metrics"]["partners_found"] > 5


@pytest.mark.parametrize("words", [(), ("method=autoencoder",), ("optimizer=lars", "lr=0.5")])
def test_resumes_to_the_same_bits(resume_check, words: tuple[str, ...]) -> None:
    resume_check("representation_learning", "+size=smoke", "steps=12", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("temperature=0",), "temperature must be > 0"),
        (("batch_size=1",), "batch_size must be at least 2"),
        (("crop=1.5",), "crop must be from 0 to 1"),
        (("method=simclar",), "did you mean simclr?"),
        (("method=pixels", "probe=projection"), "needs method=simclr"),
        (("data=pydoc",), "pydoc is a text, and this week wants a set of images"),
        (("batch_size=5000",), "batch_size=5000"),
    ],
)
def test_settings_out_of_range_are_refused(lab_run, words: tuple[str, ...], message: str) -> None:
    done = lab_run("representation_learning", "+size=smoke", *words)
    assert done.returncode == 2, done.output
    assert message in done.output


def test_simclr_is_above_every_other_representation_without_labels() -> None:
    """On record, with the same encoder, work and images: mean over seeds of the linear probe."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "results/representation_learning"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    records = [json.loads((ROOT / file).read_text()) for file in files if file.endswith(".json")]
    probe = {
        method: [
            r["metrics"]["probe_accuracy"]
            for r in records
            if r["size"] == "tiny" and r["data"]["name"] == "cifar10_12k"
            and r["ended"] == "finished" and r["experiment"] is None
            and r["config"]["method"] == method
        ]
        for method in PICTURES
    }  # fmt: skip
    means = {method: statistics.mean(values) for method, values in probe.items()}
    for method in ("autoencoder", "random", "pixels"):
        assert means["simclr"] > means[method] + 5, means
