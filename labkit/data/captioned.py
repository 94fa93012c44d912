"""Pictures with captions, as retrieval and captioning use them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from labkit.data.kinds import Dataset


@dataclass(frozen=True)
class CaptionedImages:
    """Pictures `x`, uint8 (N, 3, H, W), and the captions of each, one or more."""

    x: np.ndarray
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class ImageTextData(Dataset):
    """Pictures with captions in two splits, in the order of their files."""

    train: CaptionedImages
    test: CaptionedImages

    def check(self) -> None:
        """Raises DataError for an empty split, a picture without a caption, or an empty caption."""
        self._refuse_empty("train", "test")
        for name, split in (("train", self.train), ("test", self.test)):
            x = split.x
            self._refuse_unless(
                x.ndim == 4 and x.dtype == np.uint8 and x.shape[1:] == (3, *self.train.x.shape[2:]),
                f"its {name} pictures are {x.dtype} {x.shape}, not bytes (N, 3, H, W)",
            )
            self._refuse_unless(
                len(split.captions) == len(x),
                f"it has {len(x):,} {name} pictures and captions for {len(split.captions):,}",
            )
            for number, captions in enumerate(split.captions):
                self._refuse_unless(
                    bool(captions) and all(caption.strip() for caption in captions),
                    f"{name} picture {number} has no caption, or an empty one",
                )

    def sizes(self) -> dict[str, int]:
        """Pictures of each split."""
        return {"train": len(self.train), "test": len(self.test)}

    def digest(self) -> str:
        """SHA-256 over the bytes of the pictures and the captions as JSON, split by split."""
        total = hashlib.sha256()
        for split in (self.train, self.test):
            total.update(np.ascontiguousarray(split.x).data)
            total.update(json.dumps(split.captions).encode())
        return total.hexdigest()
