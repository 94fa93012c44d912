"""Damaged files of every reader: a DataError that names the file, and the fallback takes over."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit import data, paths
from labkit.data import registry
from labkit.data.sets import images, instructions, pairs, tables, text

ROW = {"instruction": " Do. ", "input": "", "output": "Done."}
WORDS = {"train": 5, "valid": 3, "test": 3}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A data folder with small sets that would pass for the published ones; no network."""
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr(paths, "ROOT", tmp_path / "clone")
    registry._load.cache_clear()

    monkeypatch.setattr(images, "IDX_COUNTS", (20, 10))
    write_fashion(tmp_path)
    monkeypatch.setattr(text, "WIKITEXT_WORDS", WORDS)
    for split, count in WORDS.items():
        put(tmp_path / "wikitext2" / f"{split}.txt.gz", gzip.compress(b"word " * count))
    monkeypatch.setattr(instructions, "ALPACA_ROWS", 40)
    write_alpaca(tmp_path, [ROW | {"instruction": f"{i}"} for i in range(40)])
    yield tmp_path
    registry._load.cache_clear()


def put(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes() + array.tobytes()


def write_fashion(folder: Path, **changed: np.ndarray) -> None:
    """20 + 10 grey images; `changed` replaces what train_images, test_labels, ... hold."""
    for part, name, count in (("train", "train", 20), ("t10k", "test", 10)):
        x = changed.get(f"{name}_images", np.zeros((count, 28, 28), np.uint8))
        y = changed.get(f"{name}_labels", np.arange(count, dtype=np.uint8) % 10)
        put(folder / "FashionMNIST" / "raw" / f"{part}-images-idx3-ubyte", idx(x))
        put(folder / "FashionMNIST" / "raw" / f"{part}-labels-idx1-ubyte", idx(y))


def write_alpaca(folder: Path, rows: Any) -> None:
    put(folder / "alpaca" / "alpaca_52k.json.gz", gzip.compress(json.dumps(rows).encode()))


def refused(name: str, fallback: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The message with which `name` is refused; and its fallback does take over."""
    with pytest.raises(data.DataError) as caught:
        data.load(name)
    assert data.load(name, fallback=fallback).name == fallback
    warning = capsys.readouterr().err
    assert "WARNING" in warning
    assert f"Using '{fallback}' instead" in warning
    assert not data.here(name)
    assert data.available()[name] is None
    return str(caught.value)


def test_the_small_sets_are_taken() -> None:
    """Or the tests below would show nothing."""
    assert data.load("fashion_mnist").sizes() == {"train": 20, "test": 10}
    assert data.load("wikitext2").sizes()["valid"] == 15
    assert sum(data.load("alpaca").sizes().values()) == 40
    assert all(data.here(name) for name in ("fashion_mnist", "wikitext2", "alpaca"))


Images = dict[str, np.ndarray]
WRONG_IMAGES: dict[str, tuple[Images, str]] = {
    "as many labels as test images": ({"train_labels": np.zeros(10, np.uint8)}, "10 labels where"),
    "fewer images": ({"train_images": np.zeros((19, 28, 28), np.uint8)}, r"images (19, 28, 28)"),
    "another size": ({"test_images": np.zeros((10, 32, 32), np.uint8)}, r"(10, 32, 32)"),
    "rank 1": ({"train_images": np.zeros(20, np.uint8)}, "bytes with 3 axes"),
    "rank 3 labels": ({"test_labels": np.zeros((10, 1, 1), np.uint8)}, "bytes with 1 axes"),
    "label 255": (
        {"train_labels": np.full(20, 255, np.uint8)},
        "Fashion-MNIST has each of its ten",
    ),
    "one class": ({"train_labels": np.zeros(20, np.uint8)}, "[20, 0, 0, 0, 0, 0, 0, 0, 0, 0]"),
    "empty test set": (
        {"test_images": np.zeros((0, 28, 28), np.uint8), "test_labels": np.zeros(0, np.uint8)},
        "0 labels where",
    ),
}


@pytest.mark.parametrize("fault", WRONG_IMAGES)
def test_wrong_images_and_labels(
    fault: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, said = WRONG_IMAGES[fault]
    write_fashion(folder, **changed)
    message = refused("fashion_mnist", "digits", capsys)
    assert said in message
    assert "FashionMNIST" in message


@pytest.mark.parametrize("length", [0, 3, 4, 10, 15, 16, 100])
def test_cut_idx_files(length: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:length])
    assert str(file) in refused("fashion_mnist", "digits", capsys)


def test_idx_sizes_that_overflow(tmp_path: Path) -> None:
    """2^22 x 2^21 x 2^21 is 2^64, and 0 in 64-bit arithmetic: as many as there are bytes."""
    header = bytes([0, 0, 8, 3]) + np.array([2**22, 2**21, 2**21], ">u4").tobytes()
    (tmp_path / "x").write_bytes(header)
    with pytest.raises(data.DataError, match="cut short or too long"):
        images.read_idx(tmp_path / "x", 3)


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda raw: raw[: len(raw) // 2],
    "cut by a byte": lambda raw: raw[:-1],
    "empty": lambda raw: b"",
    "not gzip": lambda raw: b"<html>404</html>",
    "damaged": lambda raw: raw[:12] + bytes([raw[12] ^ 0x55, raw[13] ^ 0x55]) + raw[14:],
    "not UTF-8": lambda raw: gzip.compress(b"line\nMoli\xe8re\n"),
    "an unpaired surrogate": lambda raw: gzip.compress(b"line\n\xed\xa0\x80\n"),
}


@pytest.mark.parametrize("fault", GARBAGE)
@pytest.mark.parametrize(
    ("name", "fallback", "file"),
    [
        ("wikitext2", "pydoc", "wikitext2/valid.txt.gz"),
        ("alpaca", "commands", "alpaca/alpaca_52k.json.gz"),
    ],
)
def test_damaged_gzip_files(
    name: str, fallback: str, file: str, fault: str, folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    put(folder / file, GARBAGE[fault]((folder / file).read_bytes()))
    message = refused(name, fallback, capsys)
    assert str(folder / file) in message
    if fault in ("not UTF-8", "an unpaired surrogate"):
        assert "line 2" in message


WRONG_ROWS: dict[str, tuple[Any, str]] = {
    "missing field": ({"instruction": "a", "output": "b"}, "'input' is missing"),
    "null": (ROW | {"output": None}, "'output' is null, not a text"),
    "a number": (ROW | {"input": 3.5}, "'input' is the number 3.5, not a text"),
    "a list": (ROW | {"instruction": ["Do."]}, "'instruction' is a list"),
    "an object": (ROW | {"output": {}}, "'output' is an object"),
    "true": (ROW | {"output": True}, "'output' is true or false"),
    "an unpaired surrogate": (
        ROW | {"output": "ab\ud800c"},
        r"'output' holds an unpaired surrogate ('\ud800')",
    ),
    "row is a list": ([], "is a list and not an object"),
    "row is null": (None, "is null and not an object"),
}


@pytest.mark.parametrize("fault", WRONG_ROWS)
def test_wrong_rows_of_instructions(
    fault: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, said = WRONG_ROWS[fault]
    write_alpaca(folder, [*[ROW] * 17, row, *[ROW] * 22])
    message = refused("alpaca", "commands", capsys)
    assert f"row 17 of {folder / 'alpaca' / 'alpaca_52k.json.gz'}" in message
    assert said in message


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"[1, 2", "is not JSON"), (b'{"rows": []}', "holds an object and not a list"),
        (b"[" * 100_000, "is not JSON"), (b"[" + b"9" * 5000 + b"]", "is not JSON"),
        (b"[]", "has 0 rows, Alpaca has 40"), (json.dumps([ROW] * 40).encode(), "split is empty"),
    ],
)  # fmt: skip
def test_wrong_json(
    raw: bytes, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder / "alpaca" / "alpaca_52k.json.gz", gzip.compress(raw))
    assert said in refused("alpaca", "commands", capsys)


def test_rows_are_stripped(tmp_path: Path) -> None:
    loaded = data.load("alpaca", kind=data.InstructionData)
    assert loaded.train[0].output == "Done."
    row = ROW | {"output": " \n"}
    write_alpaca(tmp_path, [row | {"instruction": f" {i}"} for i in range(40)])
    registry._load.cache_clear()
    with pytest.raises(data.DataError, match="split is empty"):
        data.load("alpaca")


def test_pairs_of_unequal_length(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pairs, "MULTI30K_FILES", {"train": ("train", 3)})
    for file, lines in (("train.de.gz", 3), ("train.en.gz", 2)):
        put(folder / "multi30k" / file, gzip.compress(b"a\n" * lines))
    hashes = {file.name: hash_of(file) for file in (folder / "multi30k").iterdir()}
    monkeypatch.setattr(pairs, "MULTI30K_SHA256", hashes)
    assert "has 3 lines and train.en.gz 2, Multi30k has 3" in refused("multi30k", "dates", capsys)


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("row", ["1;2;nan", "1;2;x", "1;2"])
def test_a_table_with_a_value_that_is_no_number(
    row: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "\n".join(['"a";"b";"quality"', *(f"{i};2;3" for i in range(40)), row])
    for name in tables.WINE_SHA256:
        put(folder / "wine_quality" / name, lines.encode())
    hashes = dict.fromkeys(tables.WINE_SHA256, hashlib.sha256(lines.encode()).hexdigest())
    monkeypatch.setattr(tables, "WINE_SHA256", hashes)
    assert "wine_quality" in refused("wine_quality", "diabetes", capsys)


@pytest.mark.parametrize(
    ("name", "fallback", "file"),
    [
        ("fashion_mnist", "digits", "FashionMNIST/raw/train-images-idx3-ubyte"),
        ("wikitext2", "pydoc", "wikitext2/train.txt.gz"),
        ("alpaca", "commands", "alpaca/alpaca_52k.json.gz"),
    ],
)
def test_a_file_that_may_not_be_read(
    name: str, fallback: str, file: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    read = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if self == folder / file:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    message = refused(name, fallback, capsys)
    assert "Permission denied" in message
    assert file in message


@pytest.mark.parametrize(
    "name", ["mnist", "cifar10", "tinyshakespeare", "multi30k", "wine_quality"]
)
def test_sets_known_by_their_checksums_are_refused_when_cut(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "mnist": [f"MNIST/raw/{file}" for file in images.MNIST_SHA256],
        "cifar10": [f"cifar-10-batches-py/{file}" for file in images.CIFAR10_MD5],
        "tinyshakespeare": ["tinyshakespeare/input.txt"],
        "multi30k": [f"multi30k/{file}" for file in pairs.MULTI30K_SHA256],
        "wine_quality": [f"wine_quality/{file}" for file in tables.WINE_SHA256],
    }
    kinds = {"mnist": "digits", "cifar10": "digits", "tinyshakespeare": "pydoc"}
    kinds |= {"multi30k": "dates", "wine_quality": "diabetes"}
    for file in files[name]:
        put(folder / file, b"\x1f\x8b cut")
    assert "differs" in refused(name, kinds[name], capsys)


def test_every_embedded_set_passes_its_own_check() -> None:
    for name in registry.EMBEDDED:
        data.load(name).check()


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ((4, 1, 8, 8), [0, 1, 2, 3], "labels go from 0 to 3, and it has 3 classes"),
        ((4, 1, 8, 8), [0, 1, 2, -1], "labels go from -1 to 2"),
        ((4, 1, 8, 8), [0, 1, 2], "4 train images and 3 labels"),
        ((0, 1, 8, 8), [], "train split is empty"),
        ((4, 8, 8), [0, 1, 2, 0], r"not bytes (N, C, H, W)"),
    ],
)
def test_images_are_checked_whatever_their_reader(x: tuple, y: list[int], said: str) -> None:
    split = data.Split(np.zeros(x, np.uint8), np.array(y, np.int64))
    with pytest.raises(data.DataError) as caught:
        data.ImageData("mine", "LAB_DATA", split, split, ("a", "b", "c")).check()
    assert said in str(caught.value)


def test_text_is_checked_for_unpaired_surrogates() -> None:
    message = "line 2 of its valid split holds an unpaired surrogate"
    with pytest.raises(data.DataError, match=message):
        data.TextData("mine", "LAB_DATA", "a", "b\n\udc80", "").check()
