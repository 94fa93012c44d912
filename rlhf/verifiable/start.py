"""The supervised start: cross-entropy on right answers, until the model is right sometimes.

GRPO learns from differences inside a group. A model that is never right has none: every reward is
0, and so is every advantage. A short supervised start is enough (Shao et al. 2024 begin with an
instruction-tuned model). It is a function of the seed and the settings alone, so a resumed run
makes it once more instead of keeping it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.data import batch_indices
from labkit.learning.muon import Muon, others
from pretraining import GPT, Shape
from rlhf.verifiable.arithmetic import END, VOCABULARY, Addition
from rlhf.verifiable.evaluate import LOOKED_AT, accuracy
from rlhf.verifiable.grpo import answer_mask
from rlhf.verifiable.settings import StartSettings

Autocast = Callable[[], contextlib.AbstractContextManager]


class Start(NamedTuple):
    """How the supervised start went."""

    steps: int
    tokens: int
    """Tokens trained on, the prompts' included."""
    accuracy: float
    """Share of right greedy answers on the validation sums."""


def make_model(
    task: Addition, width: int, layers: int, heads: int, device: torch.device | str
) -> GPT:
    """Week 7's modern GPT for sums. Raises ValueError for a shape that is impossible."""
    return GPT(Shape(VOCABULARY, task.context, width, layers, heads), "modern").to(device)


def answer_loss(model: GPT, prompt: Tensor, answer: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens up to END, in nats: (N, L), (N, T) -> scalar."""
    states = model.hidden(torch.cat([prompt, answer[:, :-1]], dim=1))[:, prompt.shape[1] - 1 :]
    kept = answer_mask(answer, END)
    return F.cross_entropy(model.logits(states[kept]).float(), answer[kept])


class Supervised:
    """Cross-entropy training on the answers of some sums, a step at a time."""

    def __init__(
        self, model: GPT, task: Addition, settings: StartSettings, seed: int, autocast: Autocast
    ) -> None:
        self.model, self.settings, self.seed, self.autocast = model, settings, seed, autocast
        device = model.embedding.weight.device
        pairs = task.pairs("train")
        pairs = pairs[: max(1, round(settings.share * len(pairs)))]
        self.prompt = torch.from_numpy(task.prompts(pairs)).to(device)
        self.answer = torch.from_numpy(task.answers(pairs)).to(device)
        self.per_row = self.prompt.shape[1] + answer_mask(self.answer, END).sum(1)  # tokens
        self.batch_size = min(settings.batch_size, len(pairs))
        matrices = list(model.blocks.parameters())
        self.muon = Muon(matrices, settings.muon_lr, precision="fp32", weight_decay=0.0)
        self.adamw = torch.optim.AdamW(
            others(model, matrices), settings.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )

    def step(self, step: int) -> tuple[Tensor, int]:
        """One step; its loss, and the tokens that it trained on."""
        index = torch.from_numpy(batch_indices(len(self.prompt), self.batch_size, step, self.seed))
        index = index.to(self.prompt.device)
        with self.autocast():
            loss = answer_loss(self.model, self.prompt[index], self.answer[index])
        self.model.zero_grad()
        loss.backward()
        self.muon.step()
        self.adamw.step()
        return loss.detach(), int(self.per_row[index].sum())


def supervised_start(
    model: GPT, task: Addition, settings: StartSettings, seed: int, autocast: Autocast
) -> Start:
    """Train `model` in place until `settings.accuracy` is reached, or for `settings.steps`."""
    trainer = Supervised(model, task, settings, seed, autocast)
    valid = task.pairs("valid")[:LOOKED_AT]
    tokens, reached = 0, 0.0
    for step in range(settings.steps):
        tokens += trainer.step(step)[1]
        if (step + 1) % settings.check_every == 0 or step == settings.steps - 1:
            reached = accuracy(model, task, valid)
            if reached >= settings.accuracy:
                break
    return Start(step + 1, tokens, reached)
