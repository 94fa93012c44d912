"""Pictures of a run: PNG grids, curves from metrics.jsonl, GIFs. Nothing here is imported before it
is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_uint8(image: Any) -> np.ndarray:
    """(H, W), (C, H, W) or (H, W, C), uint8 or float in [0, 1], array or tensor -> uint8 (H, W) or
    (H, W, 3).

    Raises ValueError for any other shape.
    """
    if hasattr(image, "detach"):  # a tensor, on any device, and maybe in bf16, which NumPy lacks
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image
    array = np.asarray(image)
    if array.dtype != np.uint8:
        array = (np.clip(array.astype(np.float64), 0, 1) * 255).round().astype(np.uint8)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(
            f"an image has shape (H, W), (C, H, W) or (H, W, C) with C 1 or 3, not {array.shape}"
        )
    return array


def save_png(path: Path, image: Any, scale: int = 1) -> None:
    """Write one image, each pixel repeated `scale` times both ways."""
    from PIL import Image

    array = to_uint8(image).repeat(scale, axis=0).repeat(scale, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_grid(
    path: Path, images: Sequence[Any], columns: int = 8, titles: Sequence[str] | None = None
) -> None:
    """Write images of one shape in rows of `columns`, small ones enlarged; a title above each if
    given.
    """
    arrays = [to_uint8(image) for image in images]
    if titles is not None:
        _titled_grid(path, arrays, columns, titles)
        return
    scale = max(1, 64 // arrays[0].shape[0])
    height, width = arrays[0].shape[:2]
    rows = -(-len(arrays) // columns)
    sheet = np.full(
        (rows * (height + 1) + 1, columns * (width + 1) + 1, *arrays[0].shape[2:]), 40, np.uint8
    )
    for i, array in enumerate(arrays):
        top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = array
    save_png(path, sheet, scale)


def _titled_grid(
    path: Path, arrays: Sequence[np.ndarray], columns: int, titles: Sequence[str]
) -> None:
    """All pictures in one pair of axes, measured in inches: axes of their own take seconds."""
    width, height, side = 1.1, 1.35, 1.04  # of a cell, and of the longer side of its picture
    rows = -(-len(arrays) // columns)
    figure = new_figure(columns * width, rows * height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    for i, (array, title) in enumerate(zip(arrays, titles, strict=True)):
        x, y = i % columns * width + width / 2, (rows - 1 - i // columns) * height
        half, tall = side * np.array(array.shape[1::-1]) / max(array.shape[:2]) / (2, 1)
        extent = (x - half, x + half, y, y + tall)
        axes.imshow(array, cmap="gray", extent=extent, vmin=0, vmax=255, interpolation="nearest")
        axes.text(x, y + tall + 0.06, title, fontsize=8, ha="center")
    axes.set(xlim=(0, columns * width), ylim=(-0.03, rows * height), aspect="equal")
    axes.axis("off")
    save_figure(path, figure)


def save_gif(path: Path, frames: Sequence[Any], fps: int = 30) -> None:
    """Write an animation that repeats. A GIF's clock ticks in 1/100 s, so 50 frames a second is the
    most.
    """
    from PIL import Image

    first, *rest = [Image.fromarray(to_uint8(frame)) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    first.save(path, save_all=True, append_images=rest, duration=max(20, round(1000 / fps)), loop=0)


def new_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """An empty matplotlib figure, in inches, that needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(path: Path, figure: Figure) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; a last line cut short by a crash is left out."""
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1] if line]


class Corridor(Protocol):
    """Where recorded runs had a metric, in equal stretches of the steps from `first` to `last`."""

    @property
    def runs(self) -> int: ...
    @property
    def first(self) -> float: ...
    @property
    def last(self) -> float: ...
    @property
    def low(self) -> Sequence[float | None]: ...
    @property
    def high(self) -> Sequence[float | None]: ...


def curve(
    metrics_file: Path,
    keys: Sequence[str],
    logy: bool = False,
    corridors: Mapping[str, Corridor] | None = None,
) -> Figure:
    """Logged metrics against the step. A key that was never logged, as when a run was cut short
    before its first validation, is named in the legend and has no curve. `corridors`, by key, are
    drawn in grey behind the curves.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    rows = read_metrics(metrics_file)
    for key in keys:
        if corridors and key in corridors:
            _draw_corridor(axes, key, corridors[key])
        points = [(row["step"], row[key]) for row in rows if key in row]
        axes.plot(
            [step for step, _ in points],
            [value for _, value in points],
            label=key if points else f"{key} (never logged)",
            marker="o" if len(points) < 30 else None,
            markersize=3,
        )
    if logy:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _draw_corridor(axes: Any, key: str, corridor: Corridor) -> None:
    """The corridor as a grey area, a line where it is one run's."""
    width = (corridor.last - corridor.first) / len(corridor.low)
    points = [
        (corridor.first + (place + 0.5) * width, low, high)
        for place, (low, high) in enumerate(zip(corridor.low, corridor.high, strict=True))
        if low is not None and high is not None
    ]
    if points:
        steps, low, high = zip(*points, strict=True)
        label = f"{key} as recorded ({corridor.runs} run{'s' * (corridor.runs > 1)})"
        axes.fill_between(steps, low, high, color="0.6", alpha=0.5, lw=3, label=label, zorder=0)
