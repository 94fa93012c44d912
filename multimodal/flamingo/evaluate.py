"""Accuracy of answers: with their pictures, with those of others, and without any."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from labkit.learning.modes import evaluating
from multimodal.flamingo.episodes import Episodes, Kind, Rows
from multimodal.flamingo.model import Flamingo

BATCH = 64


def right_answers(predicted: Tensor, rows: Rows, chunks: int) -> Tensor:
    """Which answers are right, bool (B, K): every token of one must be the likeliest.

    That is what greedy decoding would write, since its tokens so far would be the same.

    Args:
        predicted: int64 (B, T - 1), the likeliest successor of each token but the last.
    """
    chunk, good = rows.chunk[:, 1:], predicted == rows.tokens[:, 1:]
    wrong = torch.stack([((chunk == k) & ~good).any(dim=1) for k in range(chunks)], dim=1)
    return ~wrong


def accuracy_by_chunk(
    episodes: Episodes, kind: Kind, count: int, predict: Callable[[Rows], Tensor], seed: int
) -> Tensor:
    """Share in % of right answers in each chunk, float64 (K,), over `count` rows of one kind."""
    rng = np.random.default_rng((seed, 3))
    found = []
    for start in range(0, count, BATCH):
        rows = episodes.rows([kind] * min(BATCH, count - start), rng)
        found.append(right_answers(predict(rows).cpu(), rows, episodes.chunks))
    return 100 * torch.cat(found).double().mean(dim=0)


def seeing(model: Flamingo, states: Tensor, others: bool = False) -> Callable[[Rows], Tensor]:
    """The likeliest next tokens with each chunk's own picture, or with that of the next row."""

    def predict(rows: Rows) -> Tensor:
        moved = rows.to(states.device)
        pictures = moved.pictures.roll(1, dims=0) if others else moved.pictures
        return model(moved.tokens, states[pictures])[:, :-1].argmax(dim=-1)

    return predict


def reading(model: Flamingo) -> Callable[[Rows], Tensor]:
    """The likeliest next tokens of the language model alone."""
    device = model.resampler.latents.device
    return lambda rows: model.language(rows.tokens.to(device))[:, :-1].argmax(dim=-1)


def measure(
    model: Flamingo, episodes: Episodes, states: Tensor, count: int, seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The headline metrics, and for each kind of row the accuracy at every number of shots.

    `answer_accuracy` is that of the first question of a row, so without any example.
    """
    with evaluating(model):
        seen = {
            kind: accuracy_by_chunk(episodes, kind, count, seeing(model, states), seed)
            for kind in ("caption", "question", "few_shot")
        }
        blind = accuracy_by_chunk(episodes, "question", count, seeing(model, states, True), seed)
        alone = accuracy_by_chunk(episodes, "question", count, reading(model), seed)
    shots = seen["few_shot"]
    metrics = {
        "answer_accuracy": float(seen["question"][0]),
        "caption_accuracy": float(seen["caption"].mean()),
        "blind_accuracy": float(blind.mean()),
        "language_accuracy": float(alone.mean()),
    }
    metrics |= {f"shots_{k}": float(shots[k]) for k in (0, 1, 4) if k < len(shots)}
    return metrics, {kind: values.tolist() for kind, values in seen.items()}
