"""Folders of images: what is read, and what is refused and how."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import images, score
from labkit import UsageError


def folder(
    path: Path, count: int = 5, side: int = 12, mode: str = "RGB", seed: int = 0, name: str = "png"
) -> Path:
    """Random images, wider than high."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        shape = (side, side + 2) if mode in ("L", "P") else (side, side + 2, len(mode))
        pixels = rng.integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(path / f"{i:03d}.{name}")
    return path


def test_images_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    place = folder(tmp_path / "a")
    (place / "notes.txt").write_text("no image")
    found = images.read_folder(str(place))
    assert found.shape == (5, 3, 12, 14)
    assert found.dtype == torch.uint8
    expected = np.asarray(Image.open(place / "003.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(found[3].numpy(), expected)
    grey = images.read_folder(str(folder(tmp_path / "b" / "deep", mode="L")))
    assert grey.shape == (5, 1, 12, 14)
    assert images.read_folder(str(tmp_path / "b")).shape == grey.shape, "folders inside count too"


def test_a_palette_is_read_as_its_colours(tmp_path: Path) -> None:
    place = tmp_path / "p"
    place.mkdir()
    red = Image.new("RGB", (3, 2), (255, 0, 0))
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(place / "a.png")
    assert images.read_folder(str(place))[0, :, 0, 0].tolist() == [255, 0, 0]


def test_what_is_no_folder_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        images.read_folder(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no image"):
        images.read_folder(str(tmp_path / "empty"))
    place = folder(tmp_path / "damaged")
    (place / "002.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(UsageError, match=r"002\.png cannot be read as an image"):
        images.read_folder(str(place))
    with pytest.raises(UsageError, match=r"mode RGBA.*save it as plain 8-bit RGB or grey"):
        images.read_folder(str(folder(tmp_path / "alpha", mode="RGBA")))


def test_mixed_sizes_and_grey_beside_rgb_are_named(tmp_path: Path) -> None:
    place = folder(tmp_path / "sizes")
    Image.new("RGB", (9, 7)).save(place / "zz.png")
    with pytest.raises(UsageError, match=r"zz\.png is RGB, 9 x 7, and .*000\.png is RGB, 14 x 12"):
        images.read_folder(str(place))
    place = folder(tmp_path / "kinds")
    Image.new("L", (14, 12)).save(place / "zz.png")
    with pytest.raises(UsageError, match=r"zz\.png is grey, 14 x 12, and .* is RGB, 14 x 12"):
        images.read_folder(str(place))


def test_two_sets_must_fit_and_real_images_must_differ(tmp_path: Path) -> None:
    colour, grey = torch.randint(256, (4, 3, 5, 6)).byte(), torch.randint(256, (4, 1, 5, 6)).byte()
    images.check_pair(colour, colour[:2])
    with pytest.raises(UsageError, match=r"RGB, 6 x 5 and the fake ones grey, 6 x 5.*colour alone"):
        images.check_pair(colour, grey)
    with pytest.raises(UsageError, match="all 4 real images are identical"):
        images.check_pair(colour[:1].expand(4, -1, -1, -1), colour)
    assert images.identical(colour[:1].expand(4, -1, -1, -1))
    assert not images.identical(colour)
    assert not images.identical(colour[:1])


def test_some_are_drawn_from_all_of_a_sorted_folder() -> None:
    pictures = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1)
    found = images.some(pictures, 50, seed=1).flatten().tolist()
    assert len(set(found)) == 50
    assert 70 < np.mean(found) < 130, "not the first ones"
    assert images.some(pictures, 50, seed=1).equal(images.some(pictures, 50, seed=1))
    assert not images.some(pictures, 50, seed=1).equal(images.some(pictures, 50, seed=2))


# --- the command ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "real=DIR and fake=DIR name the two folders"),
        (["real=a"], "real=DIR and fake=DIR"),
        (["real=a", "fake=b", "extractor=inceptoin"], "did you mean inception?"),
        (["real=a", "fkae=b"], "did you mean fake?"),
        (["photos"], "settings are written key=value"),
        (["real=a", "fake=b", "equal=maybe"], "equal=maybe: true or false"),
        (["real=a", "fake=b", "seed=-1"], "seed=-1: a whole number"),
        (["real=a", "fake=b"], "a is not a folder"),
    ],
)
def test_words_that_cannot_be_taken(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert score.main(words) == 2
    assert message in capsys.readouterr().err


def test_metrics_are_checked_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder(tmp_path / "a", count=6)
    assert score.main([f"real={place}", f"fake={place}", "metrics=fdi"]) == 2
    assert "metrics: 'fdi' is not known; did you mean fid?" in capsys.readouterr().err
    few = folder(tmp_path / "b", count=3)
    assert score.main([f"real={place}", f"fake={few}", "metrics=kid"]) == 2
    assert "k_precision=3: so many neighbours need more than 3 images" in capsys.readouterr().err


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main(["--help"]) == 0
    assert "usage: python -m evaluation.score" in capsys.readouterr().out
