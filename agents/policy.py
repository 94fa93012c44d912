"""The small agent: week 7's GPT, trained on a teacher's traces, writing under the grammar.

It learns to write its own parts of a trace only. What a tool said is given to it, in training as in
use; only the marker `Observation:` it must learn, for there it has to stop.

Letters: B traces, T tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agents import tokens
from agents.grammar import Automaton, Constrained, react_step
from agents.ragged import write
from labkit import UsageError, exercise
from pretraining import GPT, Shape

Autocast = Callable[[], contextlib.AbstractContextManager]
ROWS = 256
"""Texts that are written at once."""
ALIGNED = 256
"""What the number of tokens in a loss is a multiple of."""
IGNORED = -100
"""In place of a target that does not count."""
MIXING = 24
"""Tokens by which lengths are disturbed before rows of similar length become a batch."""


@exercise(minutes=20)
def own_tokens(rows: Tensor, thought: int, observation: int, padding: int) -> Tensor:
    """Which tokens of a trace the model writes itself, and so learns: bool (B, T).

    True from a `thought` marker on, that marker included, up to and including the next
    `observation` marker: there the model hands over. What follows it is the tool's, False, up to
    the next `thought` marker. The question before the first marker is False, and `padding` always.

    Args:
        rows: int64 (B, T), each a trace with `padding` behind it.
        thought, observation, padding: numbers of these tokens.
    """
    place = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    last = [
        torch.where(rows == marker, place, -1).cummax(dim=1).values
        for marker in (thought, observation)
    ]
    own = (last[0] > last[1]) | (rows == observation)
    return own & (rows != padding)


class Lessons:
    """Traces as rows of tokens, and the batches cut from them."""

    def __init__(self, traces: Sequence[str], tokenizer: Any, context: int) -> None:
        """Raises UsageError when a trace is longer than the context."""
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        rows = [[*row, end] for row in tokens.encode(tokenizer, traces)]
        self.lengths = np.array([len(row) for row in rows])
        if self.lengths.max() > context:
            raise UsageError(
                f"a trace has {self.lengths.max()} tokens, and the context {context}; "
                f"type context={self.lengths.max()} or more, or a smaller longest="
            )
        widest = min(context, -(-int(self.lengths.max()) // 16) * 16)
        self.rows = torch.full((len(rows), widest), pad, dtype=torch.int32)  # there are many
        for i, row in enumerate(rows):
            self.rows[i, : len(row)] = torch.tensor(row)
        thought, observation = tokenizer.convert_tokens_to_ids([tokens.THOUGHT, tokens.OBSERVATION])
        self.own = torch.cat(
            [own_tokens(part, thought, observation, pad) for part in self.rows.split(4096)]
        )

    def to(self, device: torch.device | str) -> Self:
        """Move the rows; returns itself."""
        self.rows, self.own = self.rows.to(device), self.own.to(device)
        return self

    def batch(self, batch_size: int, step: int, seed: int) -> tuple[Tensor, Tensor]:
        """Rows (B, T) and which tokens count (B, T), a pure function of (seed, step).

        An epoch puts rows of similar length together, each time others: little is padding.
        """
        batches = len(self.rows) // batch_size
        epoch, place = divmod(step, batches)
        rng = np.random.default_rng((seed, epoch))
        order = np.argsort(self.lengths + rng.uniform(0, MIXING, len(self.lengths)))
        first = rng.permutation(batches)[place] * batch_size
        index = order[first : first + batch_size]
        # a multiple of 16, because every new shape costs time and memory in the kernels
        longest = -(-int(self.lengths[index].max()) // 16) * 16
        chosen = torch.from_numpy(index).to(self.rows.device)
        return self.rows[chosen, :longest].long(), self.own[chosen, :longest]


def lesson_loss(model: GPT, rows: Tensor, own: Tensor) -> Tensor:
    """Mean cross-entropy of the model's own tokens, in nats: (B, T), (B, T) -> scalar."""
    chosen = own[:, 1:].flatten().nonzero().squeeze(1)
    # Filled up, because every new shape costs time and memory in the kernels (see Lessons.batch).
    filled = F.pad(chosen, (0, -len(chosen) % ALIGNED))
    targets = rows[:, 1:].flatten()[filled]
    targets[len(chosen) :] = IGNORED
    states = model.hidden(rows[:, :-1]).flatten(0, 1)[filled]
    return F.cross_entropy(model.logits(states).float(), targets, ignore_index=IGNORED)


class LocalPolicy:
    """Writes the next step of transcripts with a small model of our own."""

    def __init__(
        self, model: GPT, tokenizer: Any, tools: Sequence[str], longest: int, grammar: bool = True
    ) -> None:
        """`tools` are those that may be called; `longest` counts the tokens of a step.

        Raises UsageError when no step fits into `longest` tokens.
        """
        self.model, self.tokenizer, self.longest = model, tokenizer, longest
        self.automaton: Automaton | None = None
        if grammar:
            device = model.embedding.weight.device
            self.automaton = Automaton(
                react_step(tools), tokens.pieces_of(tokenizer), tokenizer.eos_token_id
            ).to(device)
            if self.automaton.shortest > longest:
                raise UsageError(
                    f"step_tokens={longest} is too short for any step; "
                    f"type step_tokens={self.automaton.shortest} or more"
                )

    def write(self, transcripts: Sequence[str]) -> list[str]:
        """One step for each transcript, greedily; the empty text where the context is full."""
        if self.automaton is None:
            return continue_texts(self.model, self.tokenizer, transcripts, self.longest)
        make = partial(Constrained, self.automaton, count=self.longest)
        return continue_texts(self.model, self.tokenizer, transcripts, self.longest, make)


def continue_texts(
    model: GPT,
    tokenizer: Any,
    texts: Sequence[str],
    count: int,
    make: Callable[[int], Callable[[Tensor], Tensor]] | None = None,
) -> list[str]:
    """What the model writes behind each text, up to END or `count` tokens, greedily.

    Texts of similar length are written together: `make(rows)` gives the chooser of tokens for so
    many of them. An empty text gets the empty text, and so does one with no room for `count` more.
    """
    encoded = tokens.encode(tokenizer, texts)
    pieces, end = tokens.pieces_of(tokenizer), tokenizer.eos_token_id
    fit = [i for i, row in enumerate(encoded) if row and len(row) + count <= model.shape.context]
    fit.sort(key=lambda i: len(encoded[i]))
    written = [""] * len(encoded)
    for first in range(0, len(fit), ROWS):
        members = fit[first : first + ROWS]
        chooser = None if make is None else make(len(members))
        found = write(model, [encoded[i] for i in members], count, end, chooser)
        for i, row in zip(members, found.tolist(), strict=True):
            written[i] = tokens.decode(pieces, row, end)
    return written


def make_model(vocabulary: int, context: int, width: int, layers: int, heads: int) -> GPT:
    """Week 7's modern GPT."""
    return GPT(Shape(vocabulary, context, width, layers, heads), "modern")


def save(folder: Path, model: GPT, tokenizer: Any) -> None:
    """Write model and tokenizer in Hugging Face's format."""
    from pretraining import export

    export(model, tokenizer, folder)


def open_policy(folder: Path, tools: Sequence[str], longest: int, grammar: bool) -> LocalPolicy:
    """The policy that a run of this week wrote into its model/. Raises UsageError for others."""
    from transformers import AutoTokenizer

    from pretraining import load

    model = load(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokens.THOUGHT not in tokenizer.get_vocab():
        raise UsageError(
            f"{folder} holds another model; train one: python -m agents.train +size=tiny"
        )
    return LocalPolicy(model, tokenizer, tools, longest, grammar)
