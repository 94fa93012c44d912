"""The search command: what it finds, and what it says of bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from multimodal import scenes, search, start
from multimodal.pipeline import Pipeline

SIZE = start.Size(16, 1, 2, 8, 16, 8, "conv", 14)
QUERY = "a red circle left of a blue square"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run with a model of random weights, in a working directory of its own."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    every = scenes.distinct_pairs(200, range(64), 0)
    texts = [text for each in scenes.captions_of(every) for text in each]
    model, tokenizer = start.new_model(SIZE, texts, 10.0, 0.0)
    Pipeline(model, tokenizer).save(tmp_path / "runs" / "multimodal" / "smoke" / "one" / "model")
    return tmp_path


def pictures(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.JPG", "deep/c.webp")):
        Image.new("RGB", (20 + i, 30), (80 * i, 200 - 60 * i, 50)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pictures_in_a_folder_are_ranked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures(here / "mine")
    (folder / "broken.png").write_bytes(b"not a picture")
    assert search.main([QUERY, f"folder={folder}", "n=2", "out=sheet.png", "device=cpu"]) == 0
    shown = capsys.readouterr()
    assert "broken.png is left out" in shown.err
    lines = shown.out.splitlines()
    assert len(lines) == 3
    scores = [float(line.split()[0]) for line in lines[:2]]
    assert scores == sorted(scores, reverse=True)
    assert Image.open(here / "sheet.png").width > 50

    options = search.Options(folder=str(folder), device="cpu")
    found = search.search(QUERY, options)
    assert {name for _, name in found} == {"a.png", "b.JPG", str(Path("deep/c.webp"))}
    pipeline = search.open_model(options)
    x, names = search.pictures_in(folder, 16)
    cosine = pipeline.embed_pictures(x) @ pipeline.embed_texts([QUERY])[0]
    best = names[int(cosine.argmax())]
    assert found[0] == (pytest.approx(cosine.max().item(), abs=1e-5), best)


def test_without_a_folder_rendered_scenes_are_searched(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main([QUERY, "n=3", "device=cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(" a" in line for line in lines[:3])
    assert (here / "search.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["  "], "the caption is empty"),
        ([QUERY, "and another"], "one caption is needed, in quotation marks"),
        (["folder=x"], "one caption is needed"),
        ([QUERY, "folder=nowhere"], "folder=nowhere is not a folder"),
        ([QUERY, "folder=empty"], "has no pictures; known endings are .bmp"),
        ([QUERY, "folder=corrupt"], "none of the 2 pictures in folder=corrupt can be read"),
        ([QUERY, "n=0"], "n=0: a whole number of at least 1 is needed"),
        ([QUERY, "n=many"], "n=many"),
        ([QUERY, "fodler=x"], "did you mean folder?"),
        ([QUERY, "run=nowhere"], "run=nowhere is not a finished run"),
        ([f"{QUERY} left of {QUERY}"], "tokens and the model takes 14"),
        (["zebras everywhere"], "has learned none of these words: 'zebras'"),
        ([QUERY, "out=corrupt/a.png/x.png"], "cannot be written"),
        ([QUERY, "model=no/such-clip"], "neither a folder nor a model"),
    ],
)
def test_what_cannot_be_searched(
    here: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    (here / "corrupt").mkdir()
    for name in ("a.png", "b.gif"):
        (here / "corrupt" / name).write_bytes(b"\x89PNG garbage")
    assert search.main([*words, "device=cpu"]) == 2
    shown = capsys.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err


def test_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert search.main([QUERY]) == 2
    assert "train one, or take a published model" in capsys.readouterr().err
    assert search.main([]) == 2
    assert search.main(["--help"]) == 0
    assert "usage" in capsys.readouterr().out
