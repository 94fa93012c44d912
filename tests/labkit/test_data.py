"""Datasets are what their names say, or an error; fallbacks are loud; a missing network costs
seconds.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets

from labkit import data, paths
from labkit.data import fetch, registry
from labkit.data.sets import images, shapes, text
from labkit.errors import UsageError

LAB_DATA = os.environ.get("LAB_DATA")
needs_data = pytest.mark.skipif(
    not LAB_DATA, reason="set LAB_DATA to a folder with the real datasets"
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No local data, and no network wanted; the clone's own data/ is out of sight as well."""
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def test_batches_are_a_pure_function_and_cover_an_epoch() -> None:
    first = [data.batch_indices(103, 10, step, seed=3) for step in range(25)]
    again = [data.batch_indices(103, 10, step, seed=3) for step in reversed(range(25))]
    assert all((a == b).all() for a, b in zip(first, reversed(again), strict=True))
    for epoch in (first[:10], first[10:20]):
        assert len(set(np.concatenate(epoch).tolist())) == 100, "no example twice in an epoch"
    assert (first[0] != first[10]).any(), "epochs differ"
    assert (first[0] != data.batch_indices(103, 10, 0, seed=4)).any(), "seeds differ"
    with pytest.raises(UsageError, match="from 1 to the 103"):
        data.batch_indices(103, 104, 0, 0)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    bunch, loaded = load_digits(), data.load("digits")
    assert loaded.train.x.shape == (1437, 1, 8, 8)
    joined = np.concatenate([loaded.train.x, loaded.test.x])[:, 0] / 255 * 16
    theirs = sorted(
        zip(bunch.images.reshape(-1, 64).round().tolist(), bunch.target.tolist(), strict=True)
    )
    labels = np.concatenate([loaded.train.y, loaded.test.y])
    assert (
        sorted(zip(joined.reshape(-1, 64).round().tolist(), labels.tolist(), strict=True)) == theirs
    )


def test_channel_statistics_against_a_plain_computation() -> None:
    loaded = data.load("shapes")
    plain = loaded.train.x.astype(np.float64) / 255
    np.testing.assert_allclose(loaded.mean, plain.mean(axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(loaded.std, plain.std(axis=(0, 2, 3)), rtol=1e-9)


def test_shapes_defeat_a_linear_model_but_not_knowledge_of_form() -> None:
    """Ten classes: ridge regression on pixels stays below twice guessing."""
    from sklearn.linear_model import RidgeClassifier

    loaded = data.load("shapes")
    assert np.bincount(loaded.train.y).tolist() == [400] * 10
    x, t = (split.x.reshape(len(split), -1) / 255 for split in (loaded.train, loaded.test))
    assert RidgeClassifier(alpha=100).fit(x, loaded.train.y).score(t, loaded.test.y) < 0.2
    assert (shapes.draw(50, seed=9).x == shapes.draw(50, seed=9).x).all()
    assert (shapes.draw(50, seed=9).x != shapes.draw(50, seed=8).x).any()


def test_pydoc_is_text_and_its_splits_share_no_topic() -> None:
    loaded = data.load("pydoc")
    assert sum(loaded.sizes().values()) > 300_000
    assert "The " in loaded.train
    from pydoc_data.topics import topics

    longest = max(topics.values(), key=len)
    assert sum(longest in part for part in (loaded.train, loaded.valid, loaded.test)) == 1


@pytest.mark.parametrize(
    ("name", "rows", "columns"), [("diabetes", (332, 110), 10), ("breast_cancer", (427, 142), 30)]
)
def test_embedded_tables_are_scikit_learns_rows(name: str, rows: tuple, columns: int) -> None:
    table = data.load(name)
    assert isinstance(table, data.TableData)
    assert (table.x_train.shape, table.x_test.shape) == ((rows[0], columns), (rows[1], columns))
    assert len(table.features) == columns
    theirs = getattr(sklearn.datasets, f"load_{name}")
    x, y = theirs(return_X_y=True, **({"scaled": False} if name == "diabetes" else {}))
    y = 1 - y if name == "breast_cancer" else y
    both = np.column_stack(
        [np.vstack([table.x_train, table.x_test]), np.concatenate([table.y_train, table.y_test])]
    )
    np.testing.assert_array_equal(
        np.unique(both, axis=0), np.unique(np.column_stack([x, y]), axis=0)
    )


@needs_data
def test_wine_quality_has_no_training_row_in_its_test_rows() -> None:
    table = data.load("wine_quality")
    assert table.sizes() == {"train": 3990, "test": 1330}
    assert table.x_train.shape == (3990, 12)
    seen = {tuple(row) for row in np.column_stack([table.x_train, table.y_train])}
    assert not seen & {tuple(row) for row in np.column_stack([table.x_test, table.y_test])}
    assert 3 <= table.y_train.min() <= table.y_train.max() <= 9


def test_unknown_name(nowhere: Path) -> None:
    with pytest.raises(UsageError, match="did you mean mnist"):
        data.load("mnsit")


def test_a_set_of_another_kind_is_refused(nowhere: Path) -> None:
    with pytest.raises(
        UsageError, match="diabetes is a table, and this week wants a set of images"
    ):
        data.load("diabetes", kind=data.ImageData)


def test_every_name_is_of_the_kind_it_says() -> None:
    assert set(registry.KINDS) == {*registry.EMBEDDED, *registry.REAL}
    for name in registry.EMBEDDED:
        assert isinstance(data.load(name), registry.KINDS[name])


def test_absent_dataset_is_a_clear_error(nowhere: Path) -> None:
    with pytest.raises(data.DataError, match="LAB_OFFLINE is set") as caught:
        data.load("mnist", kind=data.ImageData)
    assert "set LAB_DATA" in str(caught.value)
    assert "data=<one of digits, shapes>" in str(caught.value)


def test_fallback_is_loud_and_in_the_record(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = data.load("mnist", fallback="digits")
    assert "WARNING" in capsys.readouterr().err
    provenance = loaded.provenance("mnist")
    assert (provenance["name"], provenance["requested"], provenance["source"]) == (
        "digits",
        "mnist",
        "embedded",
    )


def test_missing_network_is_noticed_within_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that takes the connection and never answers, the worst case; bounded by design, not by
    luck.
    """
    monkeypatch.delenv("LAB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        before = time.monotonic()
        assert not fetch.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.3)
        assert fetch.NETWORK_SECONDS < 5
        assert time.monotonic() - before < 5


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server on this machine that serves tmp_path/served."""
    monkeypatch.delenv("LAB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    served = tmp_path / "served"
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(served))

        def log_message(self, *args: Any) -> None:
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_address[1]}"
    web.shutdown()


def test_download_is_verified_and_whole(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = ("To be, or not to be. " * 100).encode()
    (tmp_path / "served" / "input.txt").write_bytes(body)
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(text, "SHAKESPEARE_URL", f"{server}/input.txt")
    entry = registry.REAL["tinyshakespeare"]
    monkeypatch.setitem(
        registry.REAL,
        "tinyshakespeare",
        type(entry)(entry.read, f"{server}/input.txt", entry.fetch, entry.folder),
    )
    with pytest.raises(data.DataError, match="SHA-256"):
        data.load("tinyshakespeare")
    assert not (tmp_path / "data" / "tinyshakespeare").exists(), "a wrong file is not kept"
    monkeypatch.setattr(text, "SHAKESPEARE_SHA256", hashlib.sha256(body).hexdigest())
    loaded = data.load("tinyshakespeare")
    assert loaded.train + loaded.valid == body.decode()
    assert loaded.source == "data/"
    assert [p.name for p in (tmp_path / "data").iterdir() if not p.name.startswith(".")] == [
        "tinyshakespeare"
    ]


def write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(
        bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes() + array.tobytes()
    )


def test_idx_reader_against_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets.mnist import read_image_file

    array = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / "x", array)
    assert (
        images.read_idx(tmp_path / "x", 3) == read_image_file(str(tmp_path / "x")).numpy()
    ).all()
    (tmp_path / "cut").write_bytes((tmp_path / "x").read_bytes()[:-1])
    with pytest.raises(data.DataError, match="cut short"):
        images.read_idx(tmp_path / "cut", 3)


def test_altered_mnist_is_refused(nowhere: Path) -> None:
    raw = nowhere / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in images.MNIST_SHA256:
        write_idx(raw / name, np.zeros((3, 28, 28) if "images" in name else 3, np.uint8))
    with pytest.raises(data.DataError, match="not the published MNIST file"):
        data.load("mnist")


def test_pickle_is_checked_before_it_is_opened(nowhere: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(nowhere / "ran"),))

    folder = nowhere / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in images.CIFAR10_MD5:
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(data.DataError, match="MD5 differs"):
        data.load("cifar10")
    assert not (nowhere / "ran").exists()


def test_cut_wikitext_is_refused(nowhere: Path) -> None:
    folder = nowhere / "data" / "wikitext2"
    folder.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt.gz").write_bytes(gzip.compress(b"only a few words"))
    with pytest.raises(data.DataError, match="has 4 words"):
        data.load("wikitext2")


@needs_data
def test_real_mnist_is_torchvisions() -> None:
    import torchvision

    ours = data.load("mnist")
    theirs = torchvision.datasets.MNIST(LAB_DATA, train=False)
    assert (ours.test.x[:, 0] == theirs.data.numpy()).all()
    assert (ours.test.y == theirs.targets.numpy()).all()
    np.testing.assert_allclose(
        [ours.mean[0], ours.std[0]], [0.1307, 0.3081], atol=5e-5
    )  # torchvision's examples


@needs_data
def test_real_cifar_is_named_as_what_it_is() -> None:
    loaded = data.load("cifar10")
    sizes = {"cifar10": (50_000, 10_000), "cifar10_12k": (10_000, 2_000)}
    assert (len(loaded.train), len(loaded.test)) == sizes[loaded.name]
    assert loaded.classes[3] == "cat"
    assert np.bincount(loaded.test.y).min() == np.bincount(loaded.test.y).max()


@needs_data
def test_real_texts_have_their_published_sizes() -> None:
    assert data.load("tinyshakespeare").sizes() == {"train": 1_003_854, "valid": 111_540, "test": 0}
    wikitext = data.load("wikitext2")
    tokens = len(wikitext.train.replace("\n", " <eos> ").split())
    assert tokens == 2_088_628  # Merity et al. 2016, Table 1, counts <eos>
