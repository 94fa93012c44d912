"""The part as a person runs it, at size smoke: what is trained shows, resumes, and is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustness.mechanistic.settings import LAB
from robustness.mechanistic.train import train
from tests.conftest import Lab


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of this process go there."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["test"])
    return tmp_path


def test_induction_heads_form_and_are_found(lab_run: Lab) -> None:
    done = lab_run.once("robustness.mechanistic", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["induction_score"] > 0.5
    assert metrics["repeat_loss"] < 1.5
    assert metrics["restored"] > 0.5
    assert metrics["copying"] > 0.5
    looks = [row for row in done.metrics if "valid/induction_score" in row]
    assert looks[0]["valid/induction_score"] < 0.2 < looks[-1]["valid/induction_score"]
    names = {p.stem for p in (done.dir / "samples").iterdir()}
    assert {"phase_change", "induction_head", "restoration", "ablation", "attribution"} <= names


def test_a_dictionary_finds_the_features_of_a_toy_model(lab_run: Lab) -> None:
    done = lab_run.once("robustness.mechanistic", "+size=smoke", "method=sae")
    assert done.returncode == 0, done.output
    assert done.record is not None
    metrics = done.record["metrics"]
    assert metrics["random_cosine"] + 0.2 < metrics["mean_max_cosine"] <= 1
    assert metrics["decoder_norm"] == pytest.approx(1, abs=1e-4)
    assert metrics["l0"] < 10


def test_the_phase_diagram_is_drawn(here: Path) -> None:
    words = ["method=superposition", "superposition.steps=60", "superposition.lr=5e-2"]
    assert train.main(["+size=smoke", *words]) == 0
    record, drawn = result_of(here)
    assert record["metrics"]["phase_agreement"] > 50
    assert {"phases", "geometry"} <= drawn


def test_a_dictionary_of_a_language_model_is_spliced_in(here: Path) -> None:
    words = ["method=sae", f"sae.source={LAB}", "sae.kind=topk", "sae.steps=20", "sae.tests=400"]
    assert train.main(["+size=smoke", *words, "sae.tokens=2000"]) == 0
    record, drawn = result_of(here)
    notes = record["notes"]
    assert len(notes["lens_losses"]) == 3
    assert notes["lens_losses"][-1] == pytest.approx(notes["loss"], rel=1e-5)
    share = (notes["mean_loss"] - notes["spliced_loss"]) / (notes["mean_loss"] - notes["loss"])
    assert record["metrics"]["loss_recovered"] == pytest.approx(100 * share)
    assert record["metrics"]["l0"] <= 4
    assert "lens" in drawn


def result_of(home: Path) -> tuple[dict[str, Any], set[str]]:
    """The record of the only run there, and the names of its pictures."""
    (result,) = home.glob("runs/*/*/*/result.json")
    return json.loads(result.read_text()), {p.stem for p in (result.parent / "samples").iterdir()}


def test_resumes_to_the_same_bits(resume_check: Any) -> None:
    resume_check(
        "robustness.mechanistic", "+size=smoke", "method=sae", "sae.steps=8", "sae.toy_steps=4",
        "sae.resamplings=4", "sae.window=64", "sae.batch_size=32", "sae.tests=400",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("induction.longest=13", "try induction.context=26"),
        ("induction.shortest=1", "the shortest must be 2 or more"),
        ("induction.vocabulary=11", "try induction.vocabulary=12"),
        ("induction.heads=3", "induction.width=64 must be a multiple of induction.heads=3"),
        ("induction.layers=0", "induction.layers must be > 0, got 0"),
        ("method=superposition superposition.sparsest=1", "try superposition.sparsest=0.01"),
        ("method=superposition superposition.densest=1.5", "must be above 0 and up to 1, got 1.5"),
        ("method=sae sae.sparsity=1", "sae.sparsity must be from 0 to below 1, got 1"),
        ("method=sae sae.kind=topk sae.k=129", "try sae.k=128"),
        ("method=sae sae.source=no/such", "type sae.source=lab://pretraining/tiny for week 7's"),
        (f"method=sae sae.source={LAB} sae.layer=2 sae.text=pydoc", "the model has layers 0 to 1"),
        ("method=lens", "method"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", "sae.toy_steps=1", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out
