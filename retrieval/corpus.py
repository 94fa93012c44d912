"""From documents to passages: readers of folders, and windows of words that overlap.

A passage must be short enough to be about one thing, and long enough to answer a question alone.
Windows overlap, so that a sentence on a border stands whole in one of them. The price is that the
same sentence is in two passages. Where passages are divided into training and test, whole documents
must be divided (`shared_words` measures what happens otherwise).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit import UsageError, exercise
from labkit.data import Passage
from labkit.show.console import warn

SUFFIXES = (".txt", ".md", ".markdown", ".pdf")
SIZE, OVERLAP = 120, 30
"""Words of a passage, and of them shared with the next."""


@dataclass(frozen=True)
class Document:
    """A file's name and text."""

    title: str
    text: str


@exercise(minutes=15)
def chunk(words: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Windows [begin, end) over `words` words: `size` long, each shares `overlap` with the next.

    The first begins at 0. Every word is in a window; the last ends at the last word, and may be
    shorter than `size`. No window lies inside the one before it, so fewer than `size` words are one
    window, and no words are none.

    Args:
        words: 0 or more.
        size: 1 or more.
        overlap: from 0 to size - 1.
    Raises:
        ValueError for a size or an overlap outside these bounds.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"chunks of {size} words cannot overlap by {overlap}")
    windows: list[tuple[int, int]] = []
    begin = 0
    while begin < words and (not windows or windows[-1][1] < words):
        windows.append((begin, min(begin + size, words)))
        begin += size - overlap
    return windows


def passages_of(document: Document, size: int = SIZE, overlap: int = OVERLAP) -> list[Passage]:
    """The document in windows of words, each as it stands in the text. White space is kept inside
    a passage, and not around it.
    """
    places = [match.span() for match in re.finditer(r"\S+", document.text)]
    return [
        Passage(document.title, document.text[places[begin][0] : places[end - 1][1]])
        for begin, end in chunk(len(places), size, overlap)
    ]


def shared_words(passages: Sequence[str], others: Sequence[str], run: int = 8) -> float:
    """Share of `passages` that have `run` successive words in common with one of `others`.

    Between training and test passages this should be 0.
    """
    if not passages:
        return 0.0
    known = set().union(*(_runs(text, run) for text in others))
    return sum(bool(_runs(text, run) & known) for text in passages) / len(passages)


def _runs(text: str, run: int) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + run]) for i in range(len(words) - run + 1)}


def read_folder(folder: Path) -> list[Document]:
    """The text, Markdown and PDF files below a folder, in the order of their names.

    A file without text, such as a scanned PDF, is left out with a warning. Raises UsageError when
    there is no folder, or nothing to read in it.
    """
    if not folder.is_dir():
        raise UsageError(f"docs={folder} is not a folder; type docs=FOLDER, with .txt, .md or .pdf")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise UsageError(
            f"docs={folder} has no documents: {', '.join(SUFFIXES)} are read; put some into it"
        )
    documents = []
    for file in files:
        title = str(file.relative_to(folder))
        try:
            text = read_pdf(file) if file.suffix.lower() == ".pdf" else read_text(file)
        except UsageError as error:
            warn(str(error))
            continue
        documents.append(Document(title, text))
    if not documents:
        raise UsageError(f"none of the {len(files)} files in docs={folder} has text; see above")
    return documents


def read_text(file: Path) -> str:
    """The text of a file in UTF-8. Raises UsageError, which names it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is left out: it is not text in UTF-8 ({error})") from error
    if not text.strip():
        raise UsageError(f"{file} is left out: it is empty")
    return text


def read_pdf(file: Path) -> str:
    """The text layer of a PDF. Raises UsageError when it has none, or cannot be read."""
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise UsageError(
            f'{file} is left out: pypdf is not installed; pip install -e ".[app]"'
        ) from error
    try:
        text = "\n\n".join(page.extract_text() for page in PdfReader(file).pages)
    except Exception as error:  # a damaged PDF raises many types
        raise UsageError(
            f"{file} is left out: it is not a PDF that can be read "
            f"({type(error).__name__}: {error})"
        ) from error
    if not text.strip():
        raise UsageError(
            f"{file} is left out: it has pages but no text, so it was probably scanned; "
            "a programme for text recognition such as ocrmypdf adds the text"
        )
    return text
