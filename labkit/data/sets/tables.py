"""Tables of numbers: scikit-learn's diabetes and breast cancer, and the UCI wine quality set."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from labkit.data.fetch import download
from labkit.data.kinds import DataError, TableData
from labkit.data.sets.images import source_of

WINE_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/"
WINE_SHA256 = {
    "winequality-red.csv": "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
    "winequality-white.csv": "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
}
TEST_SHARE = 0.25


def _split(
    name: str, source: str, x: np.ndarray, y: np.ndarray, features: list[str], target: str
) -> TableData:
    """Shuffled once, a quarter kept for testing. Columns are as published: scaling them, with
    the mean and deviation of the training rows, is left to the week.
    """
    order = np.random.default_rng(0).permutation(len(x))
    test, train = np.split(order, [round(TEST_SHARE * len(x))])
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return TableData(name, source, x[train], y[train], x[test], y[test], tuple(features), target)


def diabetes() -> TableData:
    """442 patients, 10 measurements, progression a year later (Efron et al. 2004), unscaled."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return _split(
        "diabetes", "embedded", bunch.data, bunch.target, list(bunch.feature_names), "progression"
    )


def breast_cancer() -> TableData:
    """569 tumours, 30 measurements (UCI, Wolberg et al. 1995); target 1 is malignant, 0 benign.

    scikit-learn codes it the other way round; here the positive class is the one to be found.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    names = [str(name) for name in bunch.feature_names]
    return _split("breast_cancer", "embedded", bunch.data, 1 - bunch.target, names, "malignant")


def read_wine_quality(folder: Path) -> TableData | None:
    """5,320 wines, 11 measurements and colour, quality from 0 to 10 (Cortez et al. 2009).

    Reads wine_quality/winequality-{red,white}.csv, verified by SHA-256. The files have 6,497 rows;
    1,177 of them repeat another exactly and are left out, or the test set would hold training rows.
    """
    files = {name: folder / "wine_quality" / name for name in WINE_SHA256}
    if not all(file.is_file() for file in files.values()):
        return None
    blocks = []
    for name, file in files.items():
        raw = file.read_bytes()
        if hashlib.sha256(raw).hexdigest() != WINE_SHA256[name]:
            raise DataError(
                f"{file} is not the published file (SHA-256 differs): replace or remove it"
            )
        rows = np.loadtxt(io.BytesIO(raw), delimiter=";", skiprows=1)
        red = np.full((len(rows), 1), float("red" in name))
        blocks.append(np.hstack([rows[:, :-1], red, rows[:, -1:]]))
    header = raw.decode().partition("\n")[0].strip().replace('"', "").split(";")
    table = np.unique(np.concatenate(blocks), axis=0)
    names = [*header[:-1], "is red"]
    return _split("wine_quality", source_of(folder), table[:, :-1], table[:, -1], names, "quality")


def fetch_wine_quality(folder: Path) -> None:
    for name, sha256 in WINE_SHA256.items():
        download(WINE_URL + name, folder / name, sha256)
