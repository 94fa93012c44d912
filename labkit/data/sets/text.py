"""Text sets: WikiText-2, Tiny Shakespeare, and CPython's own documentation, which needs no
download.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from labkit.data.fetch import download
from labkit.data.files import decode, unzip
from labkit.data.kinds import DataError, TextData
from labkit.data.sets.images import source_of

WIKITEXT_URL = "https://huggingface.co/datasets/Salesforce/wikitext"
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
WIKITEXT_WORDS = {"train": 2_051_910, "valid": 213_886, "test": 241_211}
"""Words without the end-of-line token; another count shows a cut or altered copy."""


def read_wikitext2(folder: Path) -> TextData | None:
    """WikiText-2, word level v1 (Merity et al. 2016): wikitext2/{train,valid,test}.txt.gz."""
    files = {
        split: folder / "wikitext2" / f"{split}.txt.gz" for split in ("train", "valid", "test")
    }
    if not all(file.is_file() for file in files.values()):
        return None
    texts = {split: decode(unzip(file), file) for split, file in files.items()}
    for split, words in WIKITEXT_WORDS.items():
        if (count := len(texts[split].split())) != words:
            raise DataError(
                f"{files[split]} has {count:,} words, WikiText-2 has {words:,}: replace the file"
            )
    return TextData("wikitext2", source_of(folder), **texts)


def fetch_wikitext2(folder: Path) -> None:
    """Through the `datasets` library, written in the layout that `read_wikitext2` reads."""
    import datasets

    for split, theirs in (("train", "train"), ("valid", "validation"), ("test", "test")):
        rows = datasets.load_dataset("Salesforce/wikitext", "wikitext-2-v1", split=theirs)
        (folder / f"{split}.txt.gz").write_bytes(
            gzip.compress("".join(rows["text"]).encode(), mtime=0)
        )


def read_shakespeare(folder: Path) -> TextData | None:
    """Tiny Shakespeare (Karpathy 2015): the last tenth is the validation split, as in nanoGPT; no
    test split.
    """
    file = folder / "tinyshakespeare" / "input.txt"
    if not file.is_file():
        return None
    raw = file.read_bytes()
    if hashlib.sha256(raw).hexdigest() != SHAKESPEARE_SHA256:
        raise DataError(f"{file} is not the published file (SHA-256 differs): replace or remove it")
    text = decode(raw, file)
    cut = int(len(text) * 0.9)
    return TextData("tinyshakespeare", source_of(folder), text[:cut], text[cut:], "")


def fetch_shakespeare(folder: Path) -> None:
    download(SHAKESPEARE_URL, folder / "input.txt", SHAKESPEARE_SHA256)


def pydoc() -> TextData:
    """CPython's language reference as shipped with the interpreter: real English, about half a
    megabyte.

    Whole topics go to one split (every tenth to validation, the one after it to test), so that no
    sentence is in two. The text differs between Python versions; the record's SHA-256 shows which
    it was.
    """
    from pydoc_data.topics import topics

    parts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for i, name in enumerate(sorted(topics)):
        parts[{8: "valid", 9: "test"}.get(i % 10, "train")].append(topics[name])
    return TextData(
        "pydoc", "embedded", **{split: "\n".join(texts) for split, texts in parts.items()}
    )
