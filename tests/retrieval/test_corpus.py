"""Windows of words, and files that people have: Markdown, PDF, scanned, empty."""

from itertools import pairwise
from pathlib import Path

import pytest

from labkit import UsageError
from retrieval.corpus import Document, chunk, passages_of, read_folder, shared_words


@pytest.mark.exercise("corpus.chunk")
@pytest.mark.parametrize(
    ("words", "size", "overlap", "expected"),
    [
        (10, 4, 1, [(0, 4), (3, 7), (6, 10)]),
        (11, 4, 1, [(0, 4), (3, 7), (6, 10), (9, 11)]),
        (10, 5, 0, [(0, 5), (5, 10)]),
        (12, 5, 0, [(0, 5), (5, 10), (10, 12)]),
        (3, 5, 2, [(0, 3)]),
        (5, 5, 4, [(0, 5)]),
        (6, 5, 4, [(0, 5), (1, 6)]),
        (0, 5, 2, []),
        (3, 1, 0, [(0, 1), (1, 2), (2, 3)]),
        (1, 1, 0, [(0, 1)]),
    ],
)
def test_windows(words: int, size: int, overlap: int, expected: list[tuple[int, int]]) -> None:
    assert chunk(words, size, overlap) == expected


@pytest.mark.exercise("corpus.chunk")
def test_windows_cover_overlap_and_do_not_nest() -> None:
    for words in range(1, 40):
        for size in range(1, 12):
            for overlap in range(size):
                windows = chunk(words, size, overlap)
                assert windows[0][0] == 0
                assert windows[-1][1] == words
                assert all(0 < end - begin <= size for begin, end in windows)
                for (a, b), (c, d) in pairwise(windows):
                    assert b - a == size
                    assert c == b - overlap
                    assert d > b


@pytest.mark.exercise("corpus.chunk")
@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (4, 4), (4, 5), (4, -1), (-1, -2)])
def test_windows_that_cannot_be(size: int, overlap: int) -> None:
    with pytest.raises(ValueError):
        chunk(10, size, overlap)
    with pytest.raises(ValueError):
        chunk(0, size, overlap)


def test_passages_are_as_they_stand_in_the_text() -> None:
    text = "\n".join(f"word{i}  and" for i in range(40))
    found = passages_of(Document("notes.txt", text), 30, 10)
    assert all(p.title == "notes.txt" and p.text in text for p in found)
    assert [len(p.text.split()) for p in found] == [30, 30, 30, 20]
    assert found[1].text.split()[:10] == found[0].text.split()[-10:]
    assert passages_of(Document("empty", " \n ")) == []


def test_overlap_is_a_leak_unless_whole_documents_are_divided() -> None:
    """Windows of one document in training and in test share text; those of two documents do not."""
    long = " ".join(f"alpha{i}" for i in range(200))
    other = " ".join(f"beta{i}" for i in range(200))
    windows = [p.text for p in passages_of(Document("a", long), 50, 20)]
    assert shared_words(windows[1::2], windows[::2]) == 1
    assert shared_words([p.text for p in passages_of(Document("b", other), 50, 20)], windows) == 0
    assert shared_words(windows[1:2], windows[:1], run=21) == 0, "20 words are shared"
    assert shared_words([], windows) == 0


def pdf(text: str) -> bytes:
    """A PDF of one page, by hand; without text it is a page as a scanner leaves it."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b"q Q"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % p for p in places)
    return out + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start


def test_a_folder_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pypdf")
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.md").write_text("# Cats\n\nThey sleep.")
    (tmp_path / "deep" / "b.TXT").write_bytes(b"\xef\xbb\xbfDogs bark.")
    (tmp_path / "c.pdf").write_bytes(pdf("Birds sing in the morning"))
    (tmp_path / "picture.png").write_bytes(b"no text")
    (tmp_path / "scan.pdf").write_bytes(pdf(""))
    (tmp_path / "cut.pdf").write_bytes(pdf("Fish swim")[:40])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "blank.txt").write_text(" \n")
    found = {d.title: d.text for d in read_folder(tmp_path)}
    assert set(found) == {"a.md", "c.pdf", str(Path("deep/b.TXT"))}
    assert found[str(Path("deep/b.TXT"))] == "Dogs bark."
    assert "Birds sing in the morning" in found["c.pdf"]
    said = capsys.readouterr()
    words = " ".join((said.out + said.err).split())
    assert "scan.pdf is left out: it has pages but no text, so it was probably scanned" in words
    assert "cut.pdf is left out: it is not a PDF that can be read" in words
    assert "latin.txt is left out: it is not text in UTF-8" in words
    assert "blank.txt is left out: it is empty" in words


def test_folders_without_documents(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        read_folder(tmp_path / "none")
    (tmp_path / "picture.png").write_bytes(b"no text")
    with pytest.raises(UsageError, match=r"has no documents: \.txt, \.md"):
        read_folder(tmp_path)
    (tmp_path / "blank.txt").write_text("")
    with pytest.raises(UsageError, match="none of the 1 files in docs="):
        read_folder(tmp_path)
