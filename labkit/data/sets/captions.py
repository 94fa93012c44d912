"""Pictures with captions from a folder or a zip, in the form of the `imagefolder` builder of the
`datasets` library: beside the pictures of a split lies metadata.jsonl, one object a line, with
`file_name` and either `text` or a list `captions`.

    noto_emoji            1,056 + 200 emoji of Google's Noto font with their names
    coco_captions_mini    50 + 51 photographs of COCO (Lin et al. 2014), five captions each

Both are small selections, which are read from a data folder and cannot be downloaded.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit.data.captioned import CaptionedImages, ImageTextData
from labkit.data.files import FIX, decode
from labkit.data.kinds import DataError
from labkit.data.sets.images import source_of

if TYPE_CHECKING:
    from PIL import Image

METADATA = "metadata.jsonl"
TEST_NAMES = ("test", "val", "validation")
"""Names that a held-out split may have; the first one found is taken."""
EMOJI, COCO = "image_text/noto_emoji_64.zip", "image_text/coco_captions_mini.zip"
EMOJI_URL, COCO_URL = "https://github.com/nohana/noto-emoji", "https://cocodataset.org"
EMOJI_SIDE, COCO_SIDE = 64, 224

Place = Path | zipfile.Path


def read_emoji(folder: Path) -> ImageTextData | None:
    """noto_emoji from a data folder; None when it is not there."""
    return _archive("noto_emoji", folder, EMOJI, EMOJI_SIDE)


def read_coco(folder: Path) -> ImageTextData | None:
    """coco_captions_mini from a data folder; None when it is not there."""
    return _archive("coco_captions_mini", folder, COCO, COCO_SIDE)


def not_published(file: str) -> Callable[[Path], None]:
    """What `fetch` is for a selection that no address gives."""

    def fetch(folder: Path) -> None:
        raise DataError(f"it is a selection that no address gives; its place is {file}")

    return fetch


def _archive(name: str, folder: Path, file: str, side: int) -> ImageTextData | None:
    path = folder / file
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return read_splits(zipfile.Path(archive), name, source_of(folder), side)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is cut short or not a zip ({error}): {FIX}") from error


def read_splits(root: Place, name: str, source: str, side: int) -> ImageTextData:
    """The set below `root`: train/ and the first of test/, val/ and validation/, each with its
    metadata.jsonl. Pictures become `side` x `side`: see `square`.

    Raises DataError that names the file and the line of what is wrong.
    """
    test = next((split for split in TEST_NAMES if (root / split / METADATA).is_file()), None)
    if not (root / "train" / METADATA).is_file() or test is None:
        raise DataError(
            f"{root} has no image-caption pairs: expected train/{METADATA} and test/{METADATA} "
            "beside the pictures, one JSON object a line with file_name and text or captions"
        )
    splits = {
        kind: read_split(root / at, side) for kind, at in (("train", "train"), ("test", test))
    }
    return ImageTextData(name, source, **splits)


def read_split(folder: Place, side: int) -> CaptionedImages:
    """The pictures and captions of one metadata.jsonl, in its order. Raises DataError."""
    pictures, captions = [], []
    for where, file_name, texts in _rows(folder / METADATA):
        file = folder / file_name
        try:
            pictures.append(square(file.read_bytes(), side))
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"{where}: the picture {file_name} cannot be read ({error}): {FIX}"
            ) from error
        captions.append(texts)
    if not pictures:
        raise DataError(f"{folder / METADATA} has no rows: {FIX}")
    return CaptionedImages(np.stack(pictures), tuple(captions))


def _rows(file: Place) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(where it stands, file name, captions) of each line."""
    text = decode(file.read_bytes(), Path(str(file)))
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
            file_name, texts = row["file_name"], row.get("captions", row.get("text"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{where} is not an object with file_name ({error}): {FIX}") from error
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            raise DataError(f"{where}: neither a `text` nor a list of `captions`: {FIX}")
        kept = tuple(each.strip() for each in texts)
        if not kept or not all(kept):
            raise DataError(f"{where}: {file_name} has an empty caption: {FIX}")
        yield where, str(file_name), kept


def square(raw: bytes, side: int) -> np.ndarray:
    """The middle of a picture, uint8 (3, side, side).

    Its shorter side becomes `side` (bicubic, smoothed), and what is left of the longer one is cut
    off on both ends, as CLIP's own preprocessing does. What is transparent becomes white.

    Args:
        raw: the content of an image file.
    Raises:
        ValueError for a file that is not a whole picture, with Pillow's words.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(raw)) as opened:
            opened.load()
            image = on_white(opened)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    shorter = min(image.size)
    if shorter != side:
        width, height = (side * length // shorter for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    cut = image.crop((left, top, left + side, top + side))
    return np.ascontiguousarray(np.asarray(cut, np.uint8).transpose(2, 0, 1))


def on_white(image: Image.Image) -> Image.Image:
    """An RGB picture, with white where it was transparent."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
