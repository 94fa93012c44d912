"""What the tool is worth: numbers written rightly, with and without it.

plain_match       the base model, which has no tool (%)
tool_match        after fine-tuning, with the calculator (%)
disabled_match    after fine-tuning, calls forbidden: is it the tool, or the training? (%)
filter_precision  kept calls that give the number of the text (%)
filter_recall     of the candidates that do, those that were kept (%)
plain_nll, disabled_nll    loss of plain test text before and after, without calls (nats a token)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agents import tokens
from agents.calculator import CalculatorError, calculate
from agents.policy import continue_texts
from agents.toolformer.corpus import ARROW, CLOSE, NUMBER, Document
from labkit.learning.modes import evaluating
from pretraining import GPT

LONGEST = 16
"""Tokens written at once."""


def without(forbidden: int, rows: int) -> Any:
    """A greedy chooser that never takes the token `forbidden`."""

    def choose(logits: Tensor) -> Tensor:
        logits = logits.float()
        logits[:, forbidden] = -torch.inf
        return logits.argmax(dim=-1, keepdim=True)

    return choose


def complete(model: GPT, tokenizer: Any, prompts: Sequence[str], tool: bool) -> list[str]:
    """What the model writes behind the prompts; with `tool` a call is answered, once each.

    The model stops at the arrow of a call, the calculator's result is put in, and it goes on
    (Schick et al. 2023, section 2, Inference). Where the calculator fails, the result is empty.
    """
    bracket = tokenizer.convert_tokens_to_ids("[")
    make = None if tool else partial(without, bracket)
    written = continue_texts(model, tokenizer, prompts, LONGEST, make)
    if not tool:
        return written
    called = {}
    for i, text in enumerate(written):
        before, opening, call = text.partition("[")
        if opening and ARROW in call:
            expression = call.split(ARROW)[0]
            called[i] = f"{before}[{expression}{ARROW}{answer(expression)}{CLOSE}"
    again = continue_texts(
        model, tokenizer, [prompts[i] + text for i, text in called.items()], LONGEST
    )
    for (i, text), rest in zip(called.items(), again, strict=True):
        written[i] = text + rest
    return written


def answer(expression: str) -> str:
    """The calculator's result; empty when there is none."""
    try:
        return calculate(expression)
    except CalculatorError:
        return ""


def number_of(written: str) -> str:
    """The first number outside of calls; empty when there is none."""
    while "[" in written:
        before, _, rest = written.partition("[")
        written = before + rest.partition(CLOSE)[2]
    found = NUMBER.search(written)
    return found[0] if found else ""


def match(model: GPT, tokenizer: Any, documents: Sequence[Document], tool: bool) -> float:
    """Documents (%) whose number is written rightly behind everything before it."""
    written = complete(model, tokenizer, [d.prompt for d in documents], tool)
    right = [number_of(w) == str(d.result) for w, d in zip(written, documents, strict=True)]
    return 100 * sum(right) / len(right)


def text_loss(model: GPT, tokenizer: Any, texts: Sequence[str]) -> float:
    """Mean loss of plain texts in nats a token."""
    pad, total, count = tokenizer.pad_token_id, 0.0, 0
    rows = tokens.encode(tokenizer, texts)
    batch = torch.full((len(rows), max(map(len, rows))), pad)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = torch.tensor(row)
    for part in batch.to(model.embedding.weight.device).split(256):
        with evaluating(model):
            logits = model(part[:, :-1]).float()
        loss = F.cross_entropy(logits.mT, part[:, 1:], ignore_index=pad, reduction="sum")
        total, count = total + loss.item(), count + int((part[:, 1:] != pad).sum())
    return total / count


def examples(model: GPT, tokenizer: Any, documents: Sequence[Document]) -> str:
    """Some completions, for samples/."""
    written = complete(model, tokenizer, [d.prompt for d in documents], True)
    lines = [
        f"{d.prompt}{w}\n    wanted: {d.result}" for d, w in zip(documents, written, strict=True)
    ]
    return "\n".join(lines) + "\n"
