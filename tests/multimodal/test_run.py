"""The week as a person runs it, at size smoke: CLIP and Flamingo, resuming, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal import scenes, search
from multimodal.flamingo.train import train as train_flamingo
from multimodal.pipeline import Pipeline
from multimodal.train import train
from tests.conftest import Lab
from tests.multimodal.published import make_folder

SHORT = ("scenes=80", "steps=4", "batch_size=8", "evaluations=1", "log_every=2")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands carried out in this process read and write a place of their own."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["test"])
    return tmp_path


def test_smoke_learns_and_finds(
    lab_run: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = lab_run.once("multimodal", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["recall_at_1"] > 5 * 100 / 64
    assert metrics["image_recall_at_1"] > 5 * 100 / 64
    assert metrics["colour_accuracy"] > 50
    assert metrics["recall_at_1"] <= metrics["recall_at_5"]
    assert {"held_out_recall_at_1", "pair_recall_at_1", "order_accuracy"} <= metrics.keys()
    assert done.record["data"]["name"] == "scenes"
    assert done.metrics[0]["train/scale"] == pytest.approx(1 / 0.07, rel=1e-2)
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert {"rankings.png", "similarities.png", "training.png"} <= names
    published = done.home / "artifacts" / "multimodal" / "smoke-scenes"
    pipeline = Pipeline.load(published)
    purple = scenes.singles(np.array([6 * 8]))
    image = pipeline.embed_pictures(torch.from_numpy(scenes.render(purple, 32, 3)))
    good, bad = pipeline.embed_texts(["a purple circle", "a yellow moon"])
    assert image[0] @ good > image[0] @ bad
    monkeypatch.chdir(tmp_path)
    assert search.main(["a red circle", f"run={done.dir}", "n=2", "device=cpu"]) == 0


def test_flamingo_learns_to_see(lab_run: Lab) -> None:
    done = lab_run.once("multimodal.flamingo", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["gate_jump"] == 0
    assert metrics["answer_accuracy"] > metrics["blind_accuracy"]
    assert metrics["language_accuracy"] < 5
    assert done.metrics[0]["train/gate_attention"] < 0.01
    losses = [row["train/loss"] for row in done.metrics if "train/loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    text = (done.dir / "samples" / "captions.txt").read_text()
    assert text.count("(right: ") == 12
    assert (done.dir / "samples" / "shots.png").is_file()
    assert (done.dir / "model" / "flamingo.safetensors").is_file()


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check("multimodal", "+size=smoke", *SHORT, "steps=6", "loss=siglip", "shift=1")


def records(home: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted(home.glob("runs/*/*/*/result.json"))]


@pytest.mark.parametrize("tune", ["projections", "lora"])
def test_a_published_model_is_tuned_on_a_folder(
    here: Path, tune: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make_folder(here / "clip")
    for split, count in (("train", 10), ("test", 4)):
        (here / "mine" / split).mkdir(parents=True)
        lines = []
        for i in range(count):
            Image.new("RGB", (30, 26), (25 * i, 90, 200 - 20 * i)).save(
                here / "mine" / split / f"{i}.png"
            )
            lines.append(json.dumps({"file_name": f"{i}.png", "captions": [f"w{i}", f"w1 w{i}"]}))
        (here / "mine" / split / "metadata.jsonl").write_text("\n".join(lines))
    words = [f"model={here / 'clip'}", "data=folder", f"folder={here / 'mine'}", f"tune={tune}",
             "steps=3", "batch_size=4", "evaluations=1", "validation=0.3"]  # fmt: skip
    for _ in range(2 if tune == "projections" else 1):
        assert train.main(["+size=smoke", *words]) == 0, capfd.readouterr()
    shown = capfd.readouterr().err
    assert shown.count("computing the image features") == (1 if tune == "projections" else 0)
    (record, *_) = records(here)
    assert record["data"]["name"] == "folder"  # type: ignore[index]
    assert {"recall_at_1", "image_recall_at_5", "valid_recall_at_1"} <= set(record["metrics"])  # type: ignore[call-overload]
    folder = next(here.glob("runs/multimodal/smoke/*/model"))
    assert Pipeline.load(folder).model.shape.side == 24


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("batch_size=1", "batch_size must be 2 or more, got 1"),
        ("batch_size=5000", "batch_size=5000 must be from 1 to the 1500"),
        ("tune=lora", "type tune=all with model=new"),
        ("data=folder", "type folder=/path/to/pictures"),
        ("data=folder folder=/no/where", "folder=/no/where is not a folder"),
        ("data=mnist", "data=mnist is a set of images, and this week wants a set of pictures with"),
        ("data=noto_emoji", "set LAB_DATA to a folder that has one"),
        ("data=noto_emojis", "did you mean noto_emoji?"),
        ("model=no/such-model tune=lora", "neither a folder nor a model"),
        ("side=30", "patches of 8 do not fill a side of 30 pixels"),
        ("heads=5", "no multiple of 5 heads"),
        ("side=8", "side=8 is too small"),
        ("data=noto_emoji hard_negatives=true", "type hard_negatives=false"),
        ("scale=200", "scale=200 begins above most=100"),
        ("model=x tune=projections shift=1", "type shift=0"),
        ("alone=1.5", "alone must be from 0 to 1"),
        ("loss=triplet", "loss"),
        ("stem=patch patch=5", "patches of 5 do not fill"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out
    assert not list(here.glob("results/*/*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("chunks=1", "chunks=1 leaves no example"),
        ("chunks=40", "try chunks="),
        ("heads=5", "heads=5: heads must divide d_model"),
        ("data=mnist", "data"),
        ("language=no/such-model", "language=no/such-model is neither a folder"),
        ("vision=no/such-model", "neither a folder nor a model"),
    ],
)
def test_flamingo_refuses_too(
    here: Path, words: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train_flamingo.main(["+size=smoke", "scenes=50", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out
