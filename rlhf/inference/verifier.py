"""A learned verifier: the probability that each token of an answer is right, if those before are.

A copy of the model that answers, with outputs of its own (Cobbe et al. 2021, section 4). It is
trained on the model's own answers to training questions. The programme marks every *token*: process
supervision (Lightman et al. 2023, Let's Verify Step by Step, section 2), which says where an answer
went wrong. The score of an answer is the product over its tokens (their section 2.6), so unfinished
answers have a score, too, which a tree search needs. At test time no programme is asked.

With one mark for the whole answer (outcome supervision) the same network learned almost nothing in
the same time: that an answer is wrong does not say which digit is.

Letters: N answers, L tokens of a prompt, T tokens of an answer, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretraining import GPT


class Verifier(nn.Module):
    """A GPT that says of every next token how likely it is to be right."""

    def __init__(self, trunk: GPT) -> None:
        """`trunk` is trained on: give a copy."""
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.shape.width, trunk.shape.vocabulary)
        nn.init.zeros_(self.head.weight)

    def forward(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """Logits (N, T), one for each token of the answers: (N, L), (N, T) int64."""
        tokens = torch.cat([prompt, answer[:, :-1]], dim=1)
        logits = self.head(self.trunk.hidden(tokens)[:, prompt.shape[1] - 1 :])  # (N, T, V)
        found: Tensor = logits.gather(2, answer[..., None]).squeeze(2)
        return found.float()

    def following(self, tokens: Tensor) -> Tensor:
        """Logits (N, V) of every token that may follow `tokens`, int64 (N, any length)."""
        logits: Tensor = self.head(self.trunk.hidden(tokens)[:, -1])
        return logits.float()

    def weights(self) -> int:
        """Parameters that multiply, for the count of operations."""
        return self.trunk.count_parameters(embeddings=False) + self.head.weight.numel()


def right_so_far(answer: Tensor, expected: Tensor) -> Tensor:
    """Whether each token and all before it are as expected: bool (N, T), from (N, T) twice."""
    return (answer != expected).cumsum(dim=1) == 0


def verifier_loss(logits: Tensor, mask: Tensor, right: Tensor) -> Tensor:
    """Mean binary cross-entropy over the tokens before which nothing is wrong.

    Args:
        logits: (N, T). mask: bool (N, T), the tokens of the answers, their END included.
        right: bool (N, T), as `right_so_far` gives it.
    """
    before = torch.cat([torch.ones_like(right[:, :1]), right[:, :-1]], dim=1)
    learned = mask & before
    return F.binary_cross_entropy_with_logits(logits[learned], right[learned].float())


def scores(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probability that an answer is right, (N,), from (N, T) and bool (N, T)."""
    return (F.logsigmoid(logits) * mask).sum(dim=1)
