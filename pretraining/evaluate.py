"""How good a language model is, in units that can be compared.

    nats per token       depends on the tokenizer: only models with the same one can be compared
    bits per byte        total nats / (ln 2 · bytes): comparable whatever the tokenizer
    word perplexity      e^(total nats / words): what the tables of WikiText-2 state, where every
                         end of a line counts as a word of its own

Every token of the text is predicted once, the first from END. The text is cut into adjacent windows
of the context's length, and a token sees only earlier tokens of its window: overlapping windows
would give a better number for the same model, at many times the cost.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise
from labkit.learning.modes import evaluating
from pretraining.data import inputs_and_targets
from pretraining.model import GPT

WINDOWS = 32
"""Windows that go through the model at once."""
LOGITS = 2**28
"""Logits computed at once, at most: 1 GB. GPT-2 has 50,257 for each of 1,024 tokens."""


@exercise(minutes=5)
def bits_per_byte(nats: float, text: str) -> float:
    """Bits that a model needs for each byte of a text's UTF-8, from the nats of the whole text."""
    return nats / math.log(2) / len(text.encode())


@exercise(minutes=10)
def word_perplexity(nats: float, text: str) -> float:
    """e to the nats of the whole text over its words (Merity et al. 2016).

    Words are separated by white space, and each line's end counts as one more word, `<eos>`: a text
    of 3 lines, each ended by \\n, has 3 of them. The words do not depend on the tokenizer.
    """
    words = len(text.split()) + text.count("\n")
    return math.exp(nats / words)


def negative_log_likelihood(model: GPT, tokens: Tensor, start: int) -> float:
    """Nats of a whole text, tokens (n,), each predicted once; `start` precedes the first."""
    row = torch.cat([tokens.new_tensor([start]), tokens])
    length = min(model.shape.context, len(tokens))
    starts = torch.arange(0, len(tokens) - length + 1, length, device=tokens.device)
    at_once = max(1, min(WINDOWS, LOGITS // (length * model.shape.vocabulary)))
    batches = [inputs_and_targets(row, s, length) for s in starts.split(at_once)]
    if left := len(tokens) % length:
        last = torch.tensor([len(tokens) - left], device=tokens.device)
        batches.append(inputs_and_targets(row, last, left))
    with evaluating(model):
        return sum(float(token_losses(model, x, y).sum(dtype=torch.float64)) for x, y in batches)


def token_losses(model: GPT, x: Tensor, y: Tensor) -> Tensor:
    """Nats of each target (B, T)."""
    logits = model(x).float().flatten(0, 1)
    return F.cross_entropy(logits, y.flatten(), reduction="none").view(y.shape)


def future_gap(model: GPT, tokens: Tensor, windows: int = 32) -> float:
    """Leakage from future tokens in nats per token: 0 for a model with a correct mask.

    The loss of a token when its window is cut off right before it, minus its loss in the whole
    window, at three positions of `windows` windows.
    """
    starts, length = spread(tokens, model.shape.context, windows)
    x, y = inputs_and_targets(tokens, starts, length)
    gaps = []
    with evaluating(model):
        whole = token_losses(model, x, y)
        for t in (length // 4, length // 2, length - 2):
            cut = token_losses(model, x[:, : t + 1], y[:, : t + 1])[:, t]
            gaps.append((cut - whole[:, t]).mean())
    return float(torch.stack(gaps).mean())


def target_offset(model: GPT, tokens: Tensor, windows: int = 32) -> int:
    """The offset, 0 to 3, of the token that the predictions fit best: 0 is the current token, 1 the
    next, 2 the one after that."""
    starts, length = spread(tokens, model.shape.context, windows)
    pairs = [inputs_and_targets(tokens, starts, length, shift) for shift in range(4)]
    with evaluating(model):
        losses = [float(token_losses(model, x, y).mean()) for x, y in pairs]
    return losses.index(min(losses))


def spread(tokens: Tensor, context: int, windows: int) -> tuple[Tensor, int]:
    """Starts of windows spread evenly over a text, with room for 3 tokens after each, and their
    length."""
    length = min(context, len(tokens) - 3)
    count = torch.arange(windows, device=tokens.device)
    return count * (len(tokens) - length - 3) // windows, length
