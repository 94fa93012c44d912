"""Find pictures by what they show.

python -m multimodal.search "a red circle left of a blue square"
python -m multimodal.search "a dog on a beach" folder=~/Pictures model=openai/clip-vit-base-patch32
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import UsageError, paths
from labkit.config.words import read_words, whole_number
from labkit.run import folders
from labkit.show.console import warn

if TYPE_CHECKING:
    from multimodal.pipeline import Pipeline

USAGE = """\
Find pictures by what they show.

usage: python -m multimodal.search "CAPTION" [folder=PATH] [key=value ...]

  folder=       pictures to search, also in the folders inside; rendered scenes if left out
  n=6           how many to show
  run=latest    the model of the run that finished last, or of a run folder
  model=        a published CLIP instead: a folder, or a name on the hub
  device=auto   auto, cpu, cuda, mps
  out=          contact sheet to write; search.png in the working directory if left out
"""
EXAMPLE = '"a red circle left of a blue square"'
SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
SCENES = 1000
"""Rendered scenes that are searched without a folder."""


OTHERWISE = (
    "train one, or take a published model:\n    python -m multimodal.train +size=tiny\n"
    '    python -m multimodal.search "..." model=openai/clip-vit-base-patch32'
)
"""What to type when there is no run."""


@dataclass
class Options:
    """The settings of the command, as text; `read_words` checks their names."""

    folder: str = ""
    n: str = "6"
    run: str = "latest"
    model: str = ""
    device: str = "auto"
    out: str = "search.png"


def open_model(options: Options) -> Pipeline:
    """The model that the options name. Raises UsageError."""
    from labkit.machine import device
    from multimodal.huggingface import load_published
    from multimodal.pipeline import Pipeline

    place = device.resolve(options.device)
    if options.model:
        model, tokenizer = load_published(options.model)
        return Pipeline(model.to(place), tokenizer)
    return Pipeline.load(folders.with_model(options.run, "multimodal", OTHERWISE) / "model", place)


def pictures_in(folder: Path, side: int) -> tuple[Any, list[str]]:
    """All pictures below a folder, uint8 (N, 3, side, side), and their paths inside it.

    A file that cannot be read is named and left out. Raises UsageError when no picture is left.
    """
    import numpy as np
    import torch

    from labkit.data.sets.captions import square

    if not folder.is_dir():
        raise UsageError(f"folder={folder} is not a folder; type the path of one with pictures")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise UsageError(
            f"folder={folder} has no pictures; known endings are {', '.join(sorted(SUFFIXES))}"
        )
    found, names = [], []
    for file in files:
        try:
            found.append(square(file.read_bytes(), side))
        except (OSError, ValueError) as error:
            warn(f"{file} is left out: it is not a picture that can be read ({error})")
            continue
        names.append(str(file.relative_to(folder)))
    if not found:
        raise UsageError(f"none of the {len(files)} pictures in folder={folder} can be read")
    return torch.from_numpy(np.stack(found)), names


def rendered(side: int) -> tuple[Any, list[str]]:
    """Scenes that no run was trained on, and what they show."""
    import numpy as np
    import torch

    from multimodal import scenes

    half = scenes.draw(SCENES // 2, np.arange(scenes.COMBINATIONS), 1.0, seed=5)
    pairs = scenes.distinct_pairs(SCENES // 2, np.arange(scenes.COMBINATIONS), seed=5)
    both = scenes.Scenes(*(np.concatenate(parts) for parts in zip(half, pairs, strict=True)))
    names = [captions[0] for captions in scenes.captions_of(both)]
    return torch.from_numpy(scenes.render(both, side, seed=5)), names


def search(caption: str, options: Options) -> list[tuple[float, str]]:
    """The best pictures with their cosines, best first; writes the contact sheet.

    Raises UsageError for whatever cannot be done.
    """
    from labkit.show.pictures import save_grid
    from multimodal.tokens import said_of_unknown, unknown_words

    if not caption.strip():
        raise UsageError(f"the caption is empty; say what to look for, like {EXAMPLE}")
    n = whole_number("n", options.n, 1)
    pipeline = open_model(options)
    if strange := unknown_words(pipeline.tokenizer, caption):
        said = said_of_unknown(pipeline.tokenizer, strange)
        if len(strange) == len(set(caption.lower().split())):
            raise UsageError(f"this model has learned none of these words: {said}")
        warn(f"this model has not learned {said}")
    text = pipeline.embed_texts([caption])  # refuses one that is too long
    side = pipeline.model.shape.side
    pictures, names = (
        pictures_in(paths.typed(options.folder), side) if options.folder else rendered(side)
    )
    scores = (pipeline.embed_pictures(pictures) @ text[0]).cpu()
    order = scores.argsort(descending=True, stable=True)[:n].tolist()
    titles = [f"{scores[i]:.2f} {Path(names[i]).name[:14]}" for i in order]
    try:
        save_grid(Path(options.out), [pictures[i] for i in order], min(6, len(order)), titles)
    except (OSError, ValueError) as error:
        raise UsageError(f"out={options.out} cannot be written: {error}") from error
    return [(float(scores[i]), names[i]) for i in order]


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if not words or {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0 if words else 2
    try:
        settings = [word for word in words if word.partition("=")[0].isidentifier() and "=" in word]
        captions = [word for word in words if word not in settings]
        if len(captions) != 1:
            raise UsageError(f"one caption is needed, in quotation marks, like {EXAMPLE}")
        options = read_words(Options, settings, "folder=PATH")
        for score, name in search(captions[0], options):
            print(f"{score:.3f}  {name}")
        print(f"wrote {options.out}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
