"""What a run leaves behind: metrics, the few-shot curve, and captions that it wrote."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from labkit import Run
from labkit.files import write_text
from labkit.learning.modes import evaluating
from multimodal.flamingo import figures
from multimodal.flamingo.episodes import Episodes
from multimodal.flamingo.evaluate import accuracy_by_chunk, measure, seeing
from multimodal.flamingo.model import Flamingo
from multimodal.scenes import captions_of

LOOKED_AT = 100
"""Rows of each kind in a look during training."""
WRITTEN = 12
"""Captions in samples/captions.txt."""
LONGEST = 24
"""Tokens of a caption that is written, at most."""


def look(model: Flamingo, episodes: Episodes, states: Tensor) -> dict[str, float]:
    """Accuracy on validation scenes, always of the same rows."""
    with evaluating(model):
        answers = accuracy_by_chunk(episodes, "question", LOOKED_AT, seeing(model, states), 0)
        shots = accuracy_by_chunk(episodes, "few_shot", LOOKED_AT, seeing(model, states), 0)
    return {"valid/answer_accuracy": float(answers.mean()), "valid/last_shot": float(shots[-1])}


def report(
    run: Run, model: Flamingo, tokenizer: Any, episodes: Episodes, states: Tensor, count: int
) -> dict[str, float]:
    """Draw samples/shots.png, write samples/captions.txt; returns the headline metrics."""
    metrics, accuracy = measure(model, episodes, states, count, run.seed)
    run.figure("shots", figures.shots({k: accuracy[k] for k in ("question", "few_shot")}, 100 / 8))
    run.note(accuracy_by_shots=accuracy)
    if run.writes:
        written = "\n".join(captions(model, tokenizer, episodes, states))
        write_text(run.dir / "samples" / "captions.txt", f"{written}\n")
    return metrics


def captions(model: Flamingo, tokenizer: Any, episodes: Episodes, states: Tensor) -> list[str]:
    """`written   (what a right caption is)` for some scenes."""
    lines = []
    truth = captions_of(episodes.scenes)
    stop = tokenizer(".", add_special_tokens=False)["input_ids"][-1]
    for scene in range(min(WRITTEN, len(truth))):
        start = [episodes.picture, *episodes.prompts["This is"]]
        tokens = write(model, start, states[scene], stop)
        text = tokenizer.decode(tokens[len(start) :]).strip()
        lines.append(f"{text}   (right: {truth[scene][0]}.)")
    return lines


def write(model: Flamingo, start: list[int], states: Tensor, stop: int) -> list[int]:
    """Greedy continuation of one row about one picture, up to the token `stop`."""
    row = torch.tensor([start], device=states.device)
    with evaluating(model):
        for _ in range(LONGEST):
            best = model(row, states[None, None])[0, -1].argmax()
            row = torch.cat([row, best.view(1, 1)], dim=1)
            if int(best) == stop:
                break
    return [int(token) for token in row[0]]
