"""What a loaded dataset is: splits in memory, and where they came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.errors import UsageError

if TYPE_CHECKING:
    import torch


class DataError(UsageError):
    """A dataset is damaged, or neither here nor downloadable; the message says what to do."""


@dataclass(frozen=True)
class Split:
    """Images `x`, uint8 (N, C, H, W), and their classes `y`, int64 (N,)."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def tensors(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of x (uint8) and y (int64) on a device."""
        import torch

        return torch.from_numpy(self.x.copy()).to(device), torch.from_numpy(self.y.copy()).to(
            device
        )


@dataclass(frozen=True)
class Dataset:
    """Name and source of a set: `source` is LAB_DATA, data/, downloaded or embedded."""

    name: str
    source: str

    def sizes(self) -> dict[str, int]:
        raise TypeError("a Dataset is one of its kinds: ImageData, TextData, ...")

    def digest(self) -> str:
        raise TypeError("a Dataset is one of its kinds: ImageData, TextData, ...")

    def check(self) -> None:
        """Raises DataError when the parts do not make a set of this kind."""
        raise TypeError("a Dataset is one of its kinds: ImageData, TextData, ...")

    def _refuse_unless(self, good: bool, what: str) -> None:
        if not good:
            raise DataError(f"{self.name} ({self.source}): {what}; replace or remove its files")

    def _refuse_empty(self, *splits: str) -> None:
        sizes = self.sizes()
        for split in splits:
            self._refuse_unless(sizes[split] > 0, f"its {split} split is empty")

    def provenance(self, requested: str) -> dict[str, Any]:
        """What a record says of its data: the set really used, its source, sizes and SHA-256."""
        return {
            "name": self.name,
            "requested": requested,
            "source": self.source,
            "splits": self.sizes(),
            "sha256": self.digest(),
        }


@dataclass(frozen=True)
class ImageData(Dataset):
    """Labelled images, not shuffled: draw batches with `batch_indices`."""

    train: Split
    test: Split
    classes: tuple[str, ...]

    def check(self) -> None:
        """Raises DataError unless each image has one label, which names a class."""
        self._refuse_empty("train", "test")
        for name, split in (("train", self.train), ("test", self.test)):
            x, y = split.x, split.y
            self._refuse_unless(
                x.ndim == 4 and x.dtype == np.uint8 and x.shape[1:] == self.train.x.shape[1:],
                f"its {name} images are {x.dtype} {x.shape}, not bytes (N, C, H, W)",
            )
            self._refuse_unless(
                y.shape == (len(x),), f"it has {len(x):,} {name} images and {len(y):,} labels"
            )
            self._refuse_unless(
                y.min() >= 0 and y.max() < len(self.classes),
                f"its {name} labels go from {y.min()} to {y.max()}, and it has "
                f"{len(self.classes)} classes",
            )

    @cached_property
    def mean(self) -> list[float]:
        """Mean of each channel over the training images, in [0, 1]."""
        return list((self._per_channel().mean(axis=1) / 255).tolist())

    @cached_property
    def std(self) -> list[float]:
        """Standard deviation of each channel over the training images, in [0, 1]."""
        return list((self._per_channel().std(axis=1, dtype=np.float64) / 255).tolist())

    def _per_channel(self) -> np.ndarray:
        return self.train.x.transpose(1, 0, 2, 3).reshape(self.train.x.shape[1], -1)

    def sizes(self) -> dict[str, int]:
        return {"train": len(self.train), "test": len(self.test)}

    def digest(self) -> str:
        """SHA-256 over the bytes of all arrays; labels as uint8."""
        total = hashlib.sha256()
        for split in (self.train, self.test):
            total.update(np.ascontiguousarray(split.x).data)
            total.update(split.y.astype(np.uint8).data)
        return total.hexdigest()


@dataclass(frozen=True)
class TextData(Dataset):
    """Plain text in three splits; `test` may be empty where the field uses only two."""

    train: str
    valid: str
    test: str

    def check(self) -> None:
        """Raises DataError for a split without text, and for an unpaired surrogate."""
        self._refuse_empty("train", "valid")
        for name in ("train", "valid", "test"):
            try:
                getattr(self, name).encode()
            except UnicodeEncodeError as error:
                line = error.object.count("\n", 0, error.start) + 1
                self._refuse_unless(
                    False, f"line {line} of its {name} split holds an unpaired surrogate"
                )

    def sizes(self) -> dict[str, int]:
        """Characters of each split."""
        return {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}

    def digest(self) -> str:
        """SHA-256 over the UTF-8 bytes of the splits in order."""
        return hashlib.sha256("".join((self.train, self.valid, self.test)).encode()).hexdigest()


@dataclass(frozen=True)
class TableData(Dataset):
    """Rows of numbers: features float64 (N, D), a target float64 (N,), names of both."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    features: tuple[str, ...]
    target: str

    def check(self) -> None:
        """Raises DataError unless each row has one target and every value is a number."""
        self._refuse_empty("train", "test")
        for name, x, y in (
            ("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test),
        ):  # fmt: skip
            self._refuse_unless(
                x.shape == (len(y), len(self.features)),
                f"its {name} rows have shape {x.shape}, with {len(y)} targets and "
                f"{len(self.features)} names of columns",
            )
            broken = np.flatnonzero(~(np.isfinite(x).all(axis=1) & np.isfinite(y)))
            self._refuse_unless(
                not len(broken), f"{name} row {broken[:1].tolist()} has values that are not numbers"
            )

    def sizes(self) -> dict[str, int]:
        return {"train": len(self.x_train), "test": len(self.x_test)}

    def digest(self) -> str:
        """SHA-256 over the bytes of x_train, y_train, x_test and y_test in this order."""
        total = hashlib.sha256()
        for part in (self.x_train, self.y_train, self.x_test, self.y_test):
            total.update(np.ascontiguousarray(part).data)
        return total.hexdigest()


Pairs = tuple[tuple[str, str], ...]
"""Sentences with their translations: (source, target) each."""


@dataclass(frozen=True)
class ParallelData(Dataset):
    """Sentences in two languages, the first of which is translated into the second."""

    languages: tuple[str, str]
    train: Pairs
    valid: Pairs
    test: Pairs

    def check(self) -> None:
        """Raises DataError for a split without pairs."""
        self._refuse_empty("train", "valid", "test")

    def sizes(self) -> dict[str, int]:
        """Pairs of each split."""
        return {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}

    def digest(self) -> str:
        """SHA-256 over all pairs in order, written `source TAB target LF`."""
        lines = (f"{a}\t{b}\n" for split in (self.train, self.valid, self.test) for a, b in split)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Instruction:
    """What to do, what to do it with (may be empty), and a good answer."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class InstructionData(Dataset):
    """Instructions with answers; no instruction with its input is in two splits."""

    train: tuple[Instruction, ...]
    valid: tuple[Instruction, ...]
    test: tuple[Instruction, ...]

    def check(self) -> None:
        """Raises DataError for a split without rows."""
        self._refuse_empty("train", "valid", "test")

    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        return {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}

    def digest(self) -> str:
        """SHA-256 over the rows in order, each as a JSON list of its three texts."""
        total = hashlib.sha256()
        for row in (*self.train, *self.valid, *self.test):
            total.update(json.dumps([row.instruction, row.input, row.output]).encode())
        return total.hexdigest()


@dataclass(frozen=True)
class Preference:
    """A prompt and two answers to it, the first of which was preferred."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class PreferenceData(Dataset):
    """Pairs of answers; no prompt is in two splits."""

    train: tuple[Preference, ...]
    valid: tuple[Preference, ...]
    test: tuple[Preference, ...]

    def check(self) -> None:
        """Raises DataError for a split without rows, an empty text, or two equal answers. Its
        message gives the row's number, not its text, which may be offensive.
        """
        self._refuse_empty("train", "valid", "test")
        for split in ("train", "valid", "test"):
            for number, row in enumerate(getattr(self, split)):
                where = f"row {number} of its {split} split"
                for part in ("prompt", "chosen", "rejected"):
                    self._refuse_unless(
                        bool(getattr(row, part).strip()), f"{where} has an empty text ({part})"
                    )
                self._refuse_unless(
                    row.chosen.strip() != row.rejected.strip(),
                    f"{where} has two equal answers, so nothing can be preferred",
                )

    def sizes(self) -> dict[str, int]:
        """Rows of each split."""
        return {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}

    def digest(self) -> str:
        """SHA-256 over the rows in order, each as a JSON list of its three texts."""
        total = hashlib.sha256()
        for row in (*self.train, *self.valid, *self.test):
            total.update(json.dumps([row.prompt, row.chosen, row.rejected]).encode())
        return total.hexdigest()
