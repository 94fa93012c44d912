"""Image sets: MNIST, Fashion-MNIST and CIFAR-10 from their published files, and two that need no
file.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from pathlib import Path

import numpy as np

from labkit import paths
from labkit.data.files import FIX
from labkit.data.kinds import DataError, ImageData, Split
from labkit.text import short

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
IDX_COUNTS = (60_000, 10_000)
"""Images for training and for testing, of MNIST and of Fashion-MNIST."""
FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
CIFAR10_12K_MD5 = {
    "data_batch_1": "8ea927f4462bbc7c8f3ce029933e3998",
    "data_batch_2": "59230de3bfab0e5343da77b7fc64a59c",
    "data_batch_3": "a5bb28924480d21753e5db83ae117a13",
    "data_batch_4": "4f74c9d450c1ee047173bedc1229d65a",
    "data_batch_5": "eee49fee69a8b2221556e95b28ecccc4",
    "test_batch": "776b416a551139bb59a6f40cea8da390",
    "batches.meta": "8ca9a2647e5873a49729444761246f4c",
}


def source_of(folder: Path) -> str:
    """How a record names a data folder: never by its path."""
    return "data/" if folder == paths.ROOT / "data" else "LAB_DATA"


def read_idx(path: Path, rank: int) -> np.ndarray:
    """An array of that rank from one IDX file of unsigned bytes (LeCun's format: magic 0x08 and
    rank, big-endian sizes, data).

    torchvision reads it as well, but importing it, and torch, takes longer than a NumPy week
    trains. Raises DataError for a damaged file, and for one of another rank.
    """
    raw = path.read_bytes()
    if len(raw) < 4 + 4 * rank or raw[:3] != b"\0\0\x08" or raw[3] != rank:
        raise DataError(f"{path} is not an IDX file of bytes with {rank} axes: {FIX}")
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4).tolist()
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if body.size != math.prod(shape):
        raise DataError(
            f"{path} is cut short or too long ({body.size} bytes for shape {tuple(shape)}): {FIX}"
        )
    return body.reshape(shape)


def _read_idx_set(
    folder: Path, subfolder: str, name: str, classes: tuple[str, ...]
) -> ImageData | None:
    raw = folder / subfolder / "raw"
    if not all((raw / file).is_file() for file in MNIST_SHA256):
        return None
    splits = [
        Split(
            read_idx(raw / f"{part}-images-idx3-ubyte", rank=3)[:, None],
            read_idx(raw / f"{part}-labels-idx1-ubyte", rank=1).astype(np.int64),
        )
        for part in ("train", "t10k")
    ]
    for split, count in zip(splits, IDX_COUNTS, strict=True):
        if split.x.shape != (count, 1, 28, 28) or split.y.shape != (count,):
            raise DataError(
                f"{raw} has images {split.x[:, 0].shape} and {len(split.y):,} labels where {name} "
                f"has ({count}, 28, 28) and {count:,}: replace or remove the files"
            )
    return ImageData(name, source_of(folder), splits[0], splits[1], classes)


def read_mnist(folder: Path) -> ImageData | None:
    """MNIST (LeCun, Cortes, Burges): 60,000 + 10,000 images 28 x 28, verified by SHA-256."""
    for file, sha256 in MNIST_SHA256.items():
        path = folder / "MNIST" / "raw" / file
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise DataError(
                f"{path} is not the published MNIST file (SHA-256 differs): replace or remove it"
            )
    return _read_idx_set(folder, "MNIST", "mnist", tuple("0123456789"))


def fetch_mnist(folder: Path) -> None:
    import torchvision

    torchvision.datasets.MNIST(str(folder), download=True)
    _lift(folder / "MNIST", folder)


def read_fashion_mnist(folder: Path) -> ImageData | None:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 60,000 + 10,000 images 28 x 28."""
    data = _read_idx_set(folder, "FashionMNIST", "fashion_mnist", FASHION_CLASSES)
    for split in (data.train, data.test) if data else ():
        counts = np.bincount(split.y, minlength=10).tolist()
        if counts != [len(split) // 10] * 10:
            raise DataError(
                f"{folder / 'FashionMNIST'} has labels {short(counts)} times, Fashion-MNIST has "
                f"each of its ten classes {len(split) // 10:,} times: replace or remove the files"
            )
    return data


def fetch_fashion_mnist(folder: Path) -> None:
    import torchvision

    torchvision.datasets.FashionMNIST(str(folder), download=True)
    _lift(folder / "FashionMNIST", folder)


def _lift(inner: Path, folder: Path) -> None:
    """torchvision makes a folder of its own below the one it is given; move what is in it up."""
    for path in inner.iterdir():
        path.rename(folder / path.name)
    inner.rmdir()


def read_cifar10(folder: Path) -> ImageData | None:
    """CIFAR-10 (Krizhevsky 2009), 50,000 + 10,000 images 32 x 32; or its 12k sample, named
    cifar10_12k.
    """
    full = folder / "cifar-10-batches-py"
    if full.is_dir():
        return _read_cifar(full, "cifar10", source_of(folder), CIFAR10_MD5)
    sample = folder / "cifar10_12k" / "cifar-10-batches-py"
    if sample.is_dir():
        return _read_cifar(sample, "cifar10_12k", source_of(folder), CIFAR10_12K_MD5)
    return None


def _read_cifar(folder: Path, name: str, source: str, md5: dict[str, str]) -> ImageData:
    """The pickled batches, each checked before it is unpickled, since a pickle can run code."""

    def unpickle(file: str) -> dict[bytes, list[bytes]]:
        try:
            raw = (folder / file).read_bytes()
        except OSError as error:
            raise DataError(f"{folder} lacks {file}: remove the folder or complete it") from error
        if hashlib.md5(raw).hexdigest() != md5[file]:
            raise DataError(
                f"{folder / file} is not the file of {name} (MD5 differs): replace or remove it"
            )
        loaded: dict[bytes, list[bytes]] = pickle.loads(raw, encoding="bytes")
        return loaded

    def split(files: list[str]) -> Split:
        parts = [unpickle(file) for file in files]
        x = np.concatenate([np.asarray(part[b"data"], dtype=np.uint8) for part in parts]).reshape(
            -1, 3, 32, 32
        )
        return Split(
            x, np.concatenate([np.asarray(part[b"labels"], dtype=np.int64) for part in parts])
        )

    classes = tuple(label.decode() for label in unpickle("batches.meta")[b"label_names"])
    return ImageData(
        name,
        source,
        split([f"data_batch_{i}" for i in range(1, 6)]),
        split(["test_batch"]),
        classes,
    )


def fetch_cifar10(folder: Path) -> None:
    import torchvision

    torchvision.datasets.CIFAR10(str(folder), download=True)
    (folder / "cifar-10-python.tar.gz").unlink(missing_ok=True)
    _lift(folder / "cifar-10-batches-py", folder)


def digits() -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 (UCI, Alpaydin and Kaynak 1998): 1,437 + 360,
    shuffled once.

    Grey values 0..16 are scaled to 0..255.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images * (255 / 16)).round().astype(np.uint8)[:, None]
    y = bunch.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1437], order[1437:]
    return ImageData(
        "digits",
        "embedded",
        Split(x[train], y[train]),
        Split(x[test], y[test]),
        tuple("0123456789"),
    )


def shapes() -> ImageData:
    """Procedural colour images, 4,000 + 1,000 of 32 x 32 in 10 classes (see labkit.data.shapes)."""
    from labkit.data.sets import shapes as procedural

    return ImageData(
        "shapes",
        "embedded",
        procedural.draw(4000, seed=1),
        procedural.draw(1000, seed=2),
        procedural.CLASSES,
    )
