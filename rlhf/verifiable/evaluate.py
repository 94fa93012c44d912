"""How often a model is right, by comparing tokens: no judge is asked, so no judge can be deceived.

Letters: P sums, n answers to each, T tokens of an answer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pretraining import GPT, generate
from rlhf.verifiable.arithmetic import END, Addition
from rlhf.verifiable.rollout import draw

ROWS = 2048
"""Answers drawn at once."""
LOOKED_AT = 4096
"""Sums of the validation split that are looked at during training, at most."""


def right(task: Addition, pairs: np.ndarray, answer: Tensor) -> Tensor:
    """Which answers (P, T) to the sums (P, 2) are exactly right, END included: bool (P,)."""
    expected = torch.from_numpy(task.answers(pairs)).to(answer.device)
    return (answer == expected).all(dim=1)


def accuracy(model: GPT, task: Addition, pairs: np.ndarray) -> float:
    """Share of the sums (P, 2) that are answered rightly by greedy decoding."""
    device, count = model.embedding.weight.device, 0
    for start in range(0, len(pairs), ROWS):
        part = pairs[start : start + ROWS]
        prompt = torch.from_numpy(task.prompts(part)).to(device)
        answer = generate(model, prompt, task.longest, temperature=0, end=END)
        count += int(right(task, part, answer).sum())
    return count / len(pairs)


def sampled(model: GPT, task: Addition, pairs: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
    """`count` answers to each sum at temperature 1: tokens (P, n, T), log-probabilities (P, n, T).

    They are on the CPU.
    """
    device, size = model.embedding.weight.device, max(1, ROWS // count)
    answers, logps = [], []
    for start in range(0, len(pairs), size):
        prompt = torch.from_numpy(task.prompts(pairs[start : start + size])).to(device)
        tokens, found = draw(model, prompt, task.longest, count)
        answers.append(tokens.cpu())
        logps.append(found.float().cpu())
    shape = (len(pairs), count, task.longest)
    return torch.cat(answers).view(shape), torch.cat(logps).view(shape)
