"""Perplexity of a model on a text, and the race of the engine against Hugging Face.

Perplexity is per token here, e^(nats / tokens): all schemes share one tokenizer. The nats are week
7's own, over the whole text.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretraining import GPT, negative_log_likelihood, to_huggingface
from systems.engine.engine import Engine
from systems.engine.sampling import Sampling
from systems.settings import EngineSettings


def perplexity(model: GPT, tokens: Tensor, start: int) -> float:
    """e to the mean nats of tokens (n,), the first of which comes after the token `start`."""
    return math.exp(negative_log_likelihood(model, tokens, start) / len(tokens))


@dataclass(frozen=True)
class Race:
    """What both sides are asked for."""

    prompts: list[list[int]]
    new: int
    """Longest answer."""
    temperature: float
    top_p: float
    stop: int
    """A token that ends an answer; -1: none does."""


def ragged_prompts(tokens: Tensor, count: int, longest: int, seed: int) -> list[list[int]]:
    """Passages of a text, from an eighth of `longest` to all of it in length."""
    draw, row = random.Random(seed), tokens.tolist()
    lengths = [draw.randint(max(1, longest // 8), longest) for _ in range(count)]
    starts = [draw.randrange(len(row) - longest) for _ in range(count)]
    return [row[s : s + n] for s, n in zip(starts, lengths, strict=True)]


def by_engine(engine: Engine, race: Race, turn: int) -> list[list[int]]:
    """The engine's answers."""
    each = [
        Sampling(
            race.temperature, top_p=race.top_p, max_tokens=race.new, seed=1000 * turn + i,
            stop_tokens=frozenset([race.stop] if race.stop >= 0 else []),
        )
        for i in range(len(race.prompts))
    ]  # fmt: skip
    return engine.generate(race.prompts, each)


def by_huggingface(model: Any, race: Race, turn: int) -> list[list[int]]:
    """The answers of transformers' `generate`: prompts padded on the left, which it needs."""
    longest = max(map(len, race.prompts))
    pad = max(0, race.stop)  # masked, so any token will do
    rows = torch.tensor([[pad] * (longest - len(p)) + p for p in race.prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in race.prompts])
    torch.manual_seed(turn)
    choice: dict[str, Any] = {"do_sample": False}
    if race.temperature:
        choice = {
            "do_sample": True, "temperature": race.temperature, "top_p": race.top_p, "top_k": 0
        }  # fmt: skip
    with torch.no_grad():
        out = model.generate(
            rows, attention_mask=mask, max_new_tokens=race.new, pad_token_id=pad,
            eos_token_id=race.stop if race.stop >= 0 else None, **choice,
        )  # fmt: skip
    answers = out[:, longest:].tolist()
    return [row[: row.index(race.stop) + 1] if race.stop in row else row for row in answers]


def tokens_per_second(seconds: float, answers: Sequence[Sequence[int]]) -> float:
    return sum(map(len, answers)) / seconds


def compare(
    model: GPT, races: Sequence[Race], settings: EngineSettings, rounds: int
) -> list[tuple[float, float]]:
    """Tokens per second of (engine, Hugging Face) for each race: the medians of `rounds` turns, in
    which both sides take turns. A first round of both is not counted."""
    theirs: Any = to_huggingface(model)
    theirs.config.eos_token_id = theirs.generation_config.eos_token_id = None
    found = []
    for race in races:
        rates: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds + 1):
            engine = Engine(model, settings)  # a fresh cache: no prefix is known from before
            sides = (
                lambda: by_engine(engine, race, turn),  # noqa: B023  (called at once)
                lambda: by_huggingface(theirs, race, turn),  # noqa: B023
            )
            for side, rate in zip(sides, rates, strict=True):
                begun = time.perf_counter()
                answers = side()
                if turn:
                    rate.append(tokens_per_second(time.perf_counter() - begun, answers))
        found.append((statistics.median(rates[0]), statistics.median(rates[1])))
    return found


def same_greedy(model: GPT, prompts: list[list[int]], new: int, settings: EngineSettings) -> float:
    """Share of greedy answers of the engine, to prompts all at once, that equal those of week 7's
    sampler, which gets one prompt after the other."""
    from pretraining import generate

    plain = [Sampling(0.0, max_tokens=new)] * len(prompts)
    ours = Engine(model, settings).generate(prompts, plain)
    device = model.embedding.weight.device
    same = 0
    for prompt, answer in zip(prompts, ours, strict=True):
        row = torch.tensor([prompt], device=device)
        same += generate(model, row, new, temperature=0)[0].tolist() == answer
    return same / len(prompts)
