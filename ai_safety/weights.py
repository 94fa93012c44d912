"""A tuned model on disk: its weights, its start's, and the numbers of its shape."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from ai_safety.lessons import vocabulary
from labkit import UsageError
from pretraining import GPT, Shape

SHAPE = "shape.json"


def save(folder: Path, model: GPT, start: GPT) -> None:
    """Write both models; the words are those of `lessons.vocabulary`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in (("model", model), ("start", start)):
        weights = {
            key: value.detach().cpu().contiguous() for key, value in each.state_dict().items()
        }
        save_file(weights, folder / f"{name}.safetensors")
    (folder / SHAPE).write_text(json.dumps(vars(model.shape)), encoding="utf-8")


def open_models(folder: Path) -> tuple[GPT, GPT]:
    """The tuned model and its start. Raises UsageError when they are not there, or have other words
    than the week has now."""
    try:
        shape = Shape(**json.loads((folder / SHAPE).read_text(encoding="utf-8")))
        both = []
        for name in ("model", "start"):
            model = GPT(shape, "modern")
            model.load_state_dict(load_file(folder / f"{name}.safetensors"))
            both.append(model.eval())
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(
            f"{folder} holds no models of this week ({error}); make them: "
            "python -m ai_safety.train +size=tiny"
        ) from error
    if shape.vocabulary != len(vocabulary()):
        raise UsageError(
            f"the models in {folder} have {shape.vocabulary} words and the week "
            f"{len(vocabulary())}; train them again: python -m ai_safety.train +size=tiny"
        )
    return both[0], both[1]
