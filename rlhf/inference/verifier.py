"""A learned verifier: the probability that an answer will be right, after each of its tokens.

Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems, section 4: a copy of the model
that answers, with one more output. It is trained on the model's own answers to training questions,
each marked right or wrong by the programme, with the same mark at every token of the answer
(section 4.2, "token-level verifiers"). So it judges unfinished answers too, which a tree search
needs. At test time no programme is asked.

Letters: N answers, L tokens of a prompt, T tokens of an answer, C width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretraining import GPT


class Verifier(nn.Module):
    """A GPT whose head says how likely the answer is to be right."""

    def __init__(self, trunk: GPT) -> None:
        """`trunk` is trained on: give a copy."""
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.shape.width, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """Logits (N, T) after every token of the answers: (N, L), (N, T) int64."""
        states = self.trunk.hidden(torch.cat([prompt, answer], dim=1))[:, prompt.shape[1] :]
        logits: Tensor = self.head(states).squeeze(-1)
        return logits.float()

    def weights(self) -> int:
        """Parameters that multiply, for the count of operations."""
        return self.trunk.count_parameters(embeddings=False) + self.head.weight.numel()


def verifier_loss(logits: Tensor, mask: Tensor, right: Tensor) -> Tensor:
    """Mean binary cross-entropy over the answers' tokens: (N, T), bool (N, T), bool (N,)."""
    target = right[:, None].expand_as(logits).float()
    return F.binary_cross_entropy_with_logits(logits[mask], target[mask])


def final_scores(logits: Tensor, mask: Tensor) -> Tensor:
    """The logit after the last token of each answer, (N,), from (N, T) and bool (N, T)."""
    last = mask.sum(dim=1) - 1
    return logits.gather(1, last[:, None]).squeeze(1)
