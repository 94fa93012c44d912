"""Pictures hold the pixels they were given."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labkit.show import pictures


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (5, 7, 1)])
def test_grey_images_of_every_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pictures.save_png(tmp_path / "a.png", values)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == values.reshape(5, 7)).all()


def test_colour_and_float_and_tensor(tmp_path: Path) -> None:
    values = torch.rand(3, 6, 4)
    pictures.save_png(tmp_path / "a.png", values)
    expected = (values.permute(1, 2, 0).numpy() * 255).round()
    assert (np.asarray(Image.open(tmp_path / "a.png")) == expected).all()
    with pytest.raises(ValueError, match="shape"):
        pictures.save_png(tmp_path / "b.png", np.zeros((2, 5, 9)))


def test_grid_places_images_row_by_row(tmp_path: Path) -> None:
    images = np.stack([np.full((1, 60, 60), value, np.uint8) for value in (10, 100, 200)])
    pictures.save_grid(tmp_path / "grid.png", images, columns=2)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert [sheet[30, 30], sheet[30, 91], sheet[91, 30]] == [10, 100, 200]


def test_gif_has_all_frames(tmp_path: Path) -> None:
    frames = [np.full((4, 4, 3), value, np.uint8) for value in (0, 128, 255)]
    pictures.save_gif(tmp_path / "a.gif", frames, fps=10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 3
        assert gif.info["duration"] == 100


def test_curve_draws_the_logged_points(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": s, "train/loss": s * 2.0}) for s in range(5)]
    file.write_text("\n".join(lines) + '\n{"step": 5, "tra')
    figure = pictures.curve(file, ["train/loss"])
    (line,) = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[s, s * 2.0] for s in range(5)]


@pytest.mark.parametrize("text", ["", '{"step": 0, "train/loss": 1.0}\n'])
@pytest.mark.parametrize("logy", [False, True])
def test_a_key_that_was_never_logged_is_named_and_has_no_curve(
    tmp_path: Path, text: str, logy: bool
) -> None:
    """A run cut short ends before its first validation, and is drawn all the same."""
    file = tmp_path / "metrics.jsonl"
    file.write_text(text)
    figure = pictures.curve(file, ["train/loss", "valid/loss"], logy)
    pictures.save_figure(tmp_path / "curve.png", figure)
    labels = [entry.get_text() for entry in figure.axes[0].get_legend().get_texts()]
    assert labels == ["train/loss" if text else "train/loss (never logged)", labels[1]]
    assert labels[1] == "valid/loss (never logged)"
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [1 if text else 0, 0]


class Elsewhere(torch.Tensor):
    """Stands for a tensor on a GPU: only its copy on the CPU can become an array."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    numpy = __array__

    def cpu(self, *_: object, **__: object) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_images_on_a_gpu(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.tensor([[[0, 1, 1], [1, 0, 0]]]).to(dtype)
    image = values.as_subclass(Elsewhere)
    with pytest.raises(TypeError):
        np.asarray(image)
    pictures.save_png(tmp_path / "a.png", image)
    pictures.save_grid(tmp_path / "b.png", [image, image])
    found = np.asarray(Image.open(tmp_path / "a.png"))
    assert (found / (1 if dtype == torch.uint8 else 255) == values[0].float().numpy()).all()
