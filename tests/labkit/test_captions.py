"""Pictures with captions from folders and zips: what is read, and every fault by its line."""

from __future__ import annotations

import json
import os
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labkit import data
from labkit.data import CaptionedImages, DataError, ImageTextData, registry
from labkit.data.sets import captions

needs_data = pytest.mark.skipif(not os.environ.get("LAB_DATA"), reason="LAB_DATA is not set")


def png(
    width: int, height: int, colour: tuple[int, ...] = (200, 30, 10), mode: str = "RGB"
) -> bytes:
    raw = BytesIO()
    Image.new(mode, (width, height), colour).save(raw, "PNG")
    return raw.getvalue()


def write(folder: Path, rows: list[object], pictures: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n\n")
    for name, raw in pictures.items():
        (folder / name).write_bytes(raw)
    return folder


def test_text_and_captions(tmp_path: Path) -> None:
    rows: list[object] = [
        {"file_name": "a.png", "text": " one "},
        {"file_name": "b.png", "captions": ["two", "a pair"]},
    ]
    write(tmp_path, rows, {"a.png": png(8, 8), "b.png": png(20, 8, (1, 2, 3))})
    found = captions.read_split(tmp_path, 8)
    assert found.captions == (("one",), ("two", "a pair"))
    assert found.x.shape == (2, 3, 8, 8)
    assert found.x[1, :, 3, 3].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("not json", "line 2 is not an object"),
        ("[1]", "line 2 is not an object"),
        ({"text": "no name"}, "line 2 is not an object with file_name"),
        ({"file_name": "a.png"}, "neither a `text` nor a list of `captions`"),
        ({"file_name": "a.png", "captions": ["good", 3]}, "neither a `text`"),
        ({"file_name": "a.png", "captions": []}, "a.png has an empty caption"),
        ({"file_name": "a.png", "text": "  "}, "a.png has an empty caption"),
        ({"file_name": "gone.png", "text": "x"}, "the picture gone.png cannot be read"),
        ({"file_name": "cut.png", "text": "x"}, "the picture cut.png cannot be read"),
        ({"file_name": "text.png", "text": "x"}, "the picture text.png cannot be read"),
    ],
)
def test_faults_are_named(tmp_path: Path, row: object, said: str) -> None:
    pictures = {"a.png": png(8, 8), "cut.png": png(40, 40)[:-30], "text.png": b"hello"}
    write(tmp_path, [{"file_name": "a.png", "text": "fine"}, row], pictures)
    with pytest.raises(DataError, match="line 2") as caught:
        captions.read_split(tmp_path, 8)
    assert said in str(caught.value)


def test_a_folder_has_two_splits(tmp_path: Path) -> None:
    rows: list[object] = [{"file_name": "a.png", "text": "fine"}]
    write(tmp_path / "train", rows, {"a.png": png(8, 8)})
    with pytest.raises(DataError, match="no image-caption pairs"):
        captions.read_splits(tmp_path, "mine", "here", 8)
    write(tmp_path / "val", rows, {"a.png": png(8, 8)})
    found = captions.read_splits(tmp_path, "mine", "here", 8)
    found.check()
    assert found.sizes() == {"train": 1, "test": 1}
    write(tmp_path / "val", [], {})
    with pytest.raises(DataError, match="has no rows"):
        captions.read_splits(tmp_path, "mine", "here", 8)


@pytest.mark.parametrize("size", [(30, 12), (12, 30), (5, 9), (16, 16)])
def test_the_middle_is_kept_as_clip_does(size: tuple[int, int]) -> None:
    """Against transformers' own processor with CLIP's steps."""
    from transformers import CLIPImageProcessor

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    raw = BytesIO()
    Image.fromarray(pixels).save(raw, "PNG")
    processor = CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_rescale=False,
        do_normalize=False,
    )  # fmt: skip
    theirs = np.asarray(processor(Image.fromarray(pixels))["pixel_values"][0]).astype(int)
    assert np.abs(captions.square(raw.getvalue(), 16).astype(int) - theirs).max() <= 2


def test_what_is_transparent_becomes_white() -> None:
    found = captions.square(png(4, 4, (10, 20, 30, 0), "RGBA"), 4)
    assert (found == 255).all()
    opaque = captions.square(png(4, 4, (10, 20, 30, 255), "RGBA"), 4)
    assert opaque[:, 0, 0].tolist() == [10, 20, 30]
    grey = captions.square(png(4, 4, (7,), "L"), 4)
    assert grey[:, 2, 2].tolist() == [7, 7, 7]


def test_a_zip_is_read_as_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / captions.EMOJI
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"{split}/metadata.jsonl", '{"file_name": "a.png", "text": "dot"}')
            archive.writestr(f"{split}/a.png", png(64, 64))
    found = captions.read_emoji(tmp_path)
    assert found is not None
    assert found.train.x.shape == (1, 3, 64, 64)
    assert captions.read_coco(tmp_path) is None
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cut short or not a zip"):
        captions.read_emoji(tmp_path)
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    registry._load.cache_clear()
    with pytest.raises(DataError, match="set LAB_DATA to a folder that has one\\.") as caught:
        data.load("noto_emoji", kind=ImageTextData)
    assert "data=<one of" not in str(caught.value)  # no set of this kind is embedded


def test_what_a_set_must_be() -> None:
    x = np.zeros((2, 3, 4, 4), np.uint8)
    good = CaptionedImages(x, (("a",), ("b", "c")))
    found = ImageTextData("mine", "test", good, good)
    found.check()
    assert found.digest() == ImageTextData("mine", "test", good, good).digest()
    other = CaptionedImages(x, (("a",), ("b", "d")))
    assert found.digest() != ImageTextData("mine", "test", good, other).digest()
    for wrong, said in (
        (CaptionedImages(x[:0], ()), "empty"),
        (CaptionedImages(x, (("a",),)), "captions for 1"),
        (CaptionedImages(x, (("a",), ())), "picture 1 has no caption"),
        (CaptionedImages(x, (("a",), (" ",))), "picture 1 has no caption, or an empty one"),
        (CaptionedImages(x[:, :1], good.captions), "not bytes"),
        (CaptionedImages(x.astype(float), good.captions), "not bytes"),
    ):
        with pytest.raises(DataError, match=said):
            ImageTextData("mine", "test", good, wrong).check()


@needs_data
def test_the_small_selections() -> None:
    emoji = data.load("noto_emoji", kind=ImageTextData)
    assert emoji.sizes() == {"train": 1056, "test": 200}
    coco = data.load("coco_captions_mini", kind=ImageTextData)
    assert coco.sizes() == {"train": 50, "test": 51}
    assert isinstance(coco, ImageTextData)
    assert {len(texts) for texts in coco.train.captions} == {5}
