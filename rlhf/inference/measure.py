"""Accuracy and cost of every way to spend computation on a question.

Letters: P questions, S answers drawn to each, n of them used, T tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pretraining import GPT, generate
from rlhf.inference.search import tree_search
from rlhf.inference.select import majority_vote, pass_at_k, rerank
from rlhf.inference.verifier import Verifier, scores
from rlhf.verifiable.arithmetic import END, VOCABULARY, Addition
from rlhf.verifiable.compute import inference_flops
from rlhf.verifiable.evaluate import ROWS, right, sampled
from rlhf.verifiable.grpo import answer_mask


class Point(NamedTuple):
    """One way to answer, and what it reaches."""

    method: str
    n: int
    """Answers drawn, or beams kept."""
    tokens: float
    """Tokens drawn for a question."""
    flops: float
    """Operations for a question, the verifier's included."""
    accuracy: float
    """Share of right answers in percent."""


class Drawn(NamedTuple):
    """S answers to each of P questions, all numbers that the ways of choosing need."""

    code: np.ndarray  # int64 (P, S): equal numbers are equal answers
    right: np.ndarray  # bool (P, S)
    length: np.ndarray  # int64 (P, S), END included
    log_likelihood: np.ndarray  # (P, S)
    score: np.ndarray  # (P, S), the verifier's probability


def draw_answers(
    model: GPT, verifier: Verifier, task: Addition, pairs: np.ndarray, count: int
) -> Drawn:
    """Draw `count` answers to each of the sums `pairs` (P, 2) and score them."""
    tokens, logps = sampled(model, task, pairs, count)
    flat, each = tokens.flatten(0, 1), pairs.repeat(count, axis=0)
    mask = answer_mask(flat, END)
    place = torch.from_numpy(VOCABULARY ** np.arange(task.longest))
    found = (
        (flat * place).sum(dim=1),
        right(task, each, flat),
        mask.sum(dim=1),
        (logps.flatten(0, 1) * mask).sum(dim=1),
        verified(verifier, torch.from_numpy(task.prompts(each)), flat, mask),
    )
    shape = (len(pairs), count)
    return Drawn(*(column.numpy().reshape(shape) for column in found))


@torch.no_grad()
def verified(verifier: Verifier, prompt: Tensor, answer: Tensor, mask: Tensor) -> Tensor:
    """The verifier's probability that each answer is right, (N,), on the CPU."""
    device, found = verifier.head.weight.device, []
    for start in range(0, len(prompt), ROWS):
        rows = slice(start, start + ROWS)
        logits = verifier(prompt[rows].to(device), answer[rows].to(device))
        found.append(scores(logits, mask[rows].to(device)).exp().cpu())
    return torch.cat(found)


def choices(drawn: Drawn, n: int) -> Iterator[tuple[str, float]]:
    """Accuracy in percent of every way to choose among n answers.

    The S answers to a question make S / n groups of n, which all count: less noise for small n.
    """
    count = drawn.code.shape[1]
    used = count // n * n
    code, correct, likelihood, score = (
        column[:, :used].reshape(-1, n)
        for column in (drawn.code, drawn.right, drawn.log_likelihood, drawn.score)
    )
    for name, place in (
        ("majority vote", majority_vote(code)),
        ("verifier", rerank(score)),
        ("weighted vote", majority_vote(code, score)),
        ("likelihood", rerank(likelihood)),
    ):
        yield name, 100 * np.take_along_axis(correct, place[:, None], axis=1).mean()
    yield "any right (pass@n)", 100 * pass_at_k(drawn.right.sum(axis=1), count, n).mean()


def sampling_points(
    drawn: Drawn, model: GPT, verifier: Verifier, prompt_length: int
) -> list[Point]:
    """A point for every way to choose, at n = 1, 2, 4, ... answers."""
    points, length = [], drawn.length.mean()
    for n in 2 ** np.arange(int(np.log2(drawn.code.shape[1])) + 1):
        writing = inference_flops(model, prompt_length + n * length)
        reading = 2.0 * verifier.weights() * (prompt_length + n * length)
        for name, reached in choices(drawn, int(n)):
            judged = name in ("verifier", "weighted vote")
            flops = writing + (reading if judged else 0.0)
            points.append(Point(name, int(n), float(n * length), float(flops), float(reached)))
    return points


def search_points(
    model: GPT,
    verifier: Verifier,
    task: Addition,
    pairs: np.ndarray,
    budgets: list[int],
) -> list[Point]:
    """A point of the tree search for each budget: so many beams, and continuations of each."""
    points = []
    prompt = torch.from_numpy(task.prompts(pairs)).to(model.embedding.weight.device)
    for width in budgets:
        found = tree_search(model, verifier, prompt, width, width, task.longest, END)
        drawn, scored = found.drawn / len(pairs), found.scored / len(pairs)
        length = task.prompt_length
        flops = inference_flops(model, length + drawn) + 2.0 * verifier.weights() * (
            length + scored
        )
        reached = 100 * right(task, pairs, found.answer).double().mean().item()
        points.append(Point("tree search", width, drawn, flops, reached))
    return points


def greedy_point(model: GPT, task: Addition, pairs: np.ndarray) -> Point:
    """One answer, the likeliest token each time."""
    prompt = torch.from_numpy(task.prompts(pairs)).to(model.embedding.weight.device)
    answer = generate(model, prompt, task.longest, temperature=0, end=END)
    length = answer_mask(answer, END).sum(dim=1).double().mean().item()
    reached = 100 * right(task, pairs, answer).double().mean().item()
    return Point("greedy", 1, length, inference_flops(model, task.prompt_length + length), reached)


def training_needed(curve: list[tuple[float, float]], target: float) -> float | None:
    """Operations of training until the accuracy `target` is reached; None when it never is.

    `curve` has (operations so far, accuracy), and between its points a straight line is taken.
    """
    before = (0.0, 0.0)
    for flops, reached in curve:
        if reached >= target:
            share = (target - before[1]) / max(reached - before[1], 1e-9)
            return before[0] + min(1.0, max(0.0, share)) * (flops - before[0])
        before = (flops, reached)
    return None
