"""Masked language modelling (Devlin et al. 2018, BERT, section 3.1, task 1).

Some tokens are hidden, and the model, which sees both sides, has to predict them. The same GPT can
do this without its causal mask; only the task changes.

Letters: B windows, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise
from labkit.learning.modes import evaluating
from pretraining.data import inputs_and_targets
from pretraining.model import GPT

IGNORE = -100
"""Target of a token that is not predicted: `F.cross_entropy` ignores it."""


@exercise(minutes=20)
def mask_tokens(
    tokens: Tensor, mask: int, vocabulary: int, rate: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide some tokens, each chosen with probability `rate`, independently.

    Of the chosen, 80 % become the token `mask`, 10 % a token drawn uniformly from the vocabulary
    (0 to vocabulary - 1), and 10 % stay as they are: the model must not learn that all tokens other
    than `mask` are right. All chosen tokens must be predicted, also the unchanged ones.

    Args:
        tokens: int64 (B, T); not changed.
        generator: of all random draws.
    Returns:
        inputs (B, T), and targets (B, T): the original token where it was chosen, else IGNORE.
    """
    chosen = torch.rand(tokens.shape, generator=generator) < rate
    kind = torch.rand(tokens.shape, generator=generator)
    random = torch.randint(vocabulary, tokens.shape, generator=generator)
    inputs = torch.where(chosen & (kind < 0.8), mask, tokens)
    inputs = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), random, inputs)
    return inputs, torch.where(chosen, tokens, IGNORE)


def masked_batch(
    windows: Tensor, mask: int, vocabulary: int, rate: float, seed: int
) -> tuple[Tensor, Tensor]:
    """`mask_tokens` from a generator of its own, on the CPU: every device masks the same."""
    generator = torch.Generator().manual_seed(seed)
    x, y = mask_tokens(windows.cpu(), mask, vocabulary, rate, generator)
    return x.to(windows.device), y.to(windows.device)


def masked_metrics(
    model: GPT, valid: Tensor, train: Tensor, mask: int, rate: float
) -> dict[str, float]:
    """Loss (nats) and accuracy (%) on hidden tokens of held-out text (n,), and the same for the
    training text's unigram frequencies."""
    length, vocabulary = model.shape.context, model.shape.vocabulary
    starts = torch.arange(0, len(valid) - length, length, device=valid.device)
    windows, _ = inputs_and_targets(valid, starts, length)
    x, y = masked_batch(windows, mask, vocabulary, rate, seed=0)
    parts = zip(x.split(32), y.split(32), strict=True)
    with evaluating(model):
        logits = torch.cat([model(inputs)[targets != IGNORE] for inputs, targets in parts])
    asked = y[y != IGNORE]
    counts = torch.bincount(train, minlength=vocabulary).double() + 1
    unigram = counts.div(counts.sum()).log()
    return {
        "masked_loss": float(F.cross_entropy(logits.float(), asked)),
        "masked_accuracy": 100 * float((logits.argmax(dim=-1) == asked).float().mean()),
        "unigram_loss": -float(unigram[asked].mean()),
        "unigram_accuracy": 100 * float((asked == counts.argmax()).float().mean()),
    }
