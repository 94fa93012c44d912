"""The engine: requests in, tokens out, step by step.

    engine = Engine(model, EngineSettings())
    answers = engine.generate([[5, 3, 8]], [Sampling(temperature=0, max_tokens=20)])

Greedy answers are those of week 7's `generate`, token by token, whatever the settings: blocks,
chunks, shared beginnings, preemption and guesses change when something is computed, never what.
"""

from __future__ import annotations

from collections.abc import Sequence as Row

import torch

from pretraining import GPT
from systems.engine.block_table import BlockPool
from systems.engine.runner import Runner
from systems.engine.sampling import Sampling, sample
from systems.engine.scheduler import Scheduler, Sequence
from systems.engine.speculative import DraftModel, NGram, decide
from systems.settings import EngineSettings


class Engine:
    """One model, its cache, and all requests on their way."""

    def __init__(self, model: GPT, settings: EngineSettings, draft: GPT | None = None) -> None:
        """`draft`: a smaller model with the same vocabulary that guesses ahead; without one guesses
        come from the request's own text. Raises ValueError for models that do not fit."""
        self.shape, self.settings = model.shape, settings
        self.pool = BlockPool(settings.blocks, settings.block_size)
        self.runner = Runner(model, settings.blocks, settings.block_size)
        self.scheduler = Scheduler(
            self.pool, settings.max_tokens, settings.max_sequences, settings.share_prefixes,
            settings.speculate,
        )  # fmt: skip
        self.proposer: NGram | DraftModel = NGram(model.shape.vocabulary)
        if draft is not None:
            if draft.shape.vocabulary != model.shape.vocabulary:
                raise ValueError("the draft model must have the vocabulary of the model it helps")
            self.proposer = DraftModel(Runner(draft, settings.blocks, settings.block_size))
        context = min(each.shape.context for each in (model, draft or model))
        self.room = min(context, settings.blocks * settings.block_size)
        """Tokens that a request may have, prompt and answer."""

    def check(self, tokens: Row[int], sampling: Sampling) -> None:
        """Raises ValueError, naming the limit, for a request that cannot be served."""
        if not tokens:
            raise ValueError("the prompt is empty; at least one token is needed")
        if min(tokens) < 0 or max(tokens) >= self.shape.vocabulary:
            raise ValueError(f"the model has tokens 0 to {self.shape.vocabulary - 1} only")
        length = len(tokens) + sampling.max_tokens
        if length > self.room:
            raise ValueError(
                f"{len(tokens)} prompt tokens and max_tokens={sampling.max_tokens} are more than "
                f"the {self.room} tokens that a request may have"
            )

    def add(self, tokens: Row[int], sampling: Sampling) -> Sequence:
        """Take in a request. Raises ValueError as `check` does."""
        self.check(tokens, sampling)
        sequence = Sequence(list(tokens), len(tokens), sampling)
        self.scheduler.waiting.append(sequence)
        return sequence

    @property
    def busy(self) -> bool:
        """Whether requests wait or run."""
        return bool(self.scheduler.waiting or self.scheduler.running)

    def abort(self, sequence: Sequence) -> None:
        """End a request early; its blocks are free at once. Nothing happens if it has ended."""
        if sequence.finished is None:
            sequence.finished = "abort"
            self.scheduler.end(sequence)

    def step(self) -> list[tuple[Sequence, list[int]]]:
        """Compute one step: each sequence that got tokens, with these. `finished` tells its end."""
        work, proposals = self.scheduler.schedule(), {}
        if self.settings.speculate and work:
            proposals = self.proposer.propose(work)
            for w in work:
                if w.writes:
                    w.count = 1 + len(w.sequence.draft)
        if not work:
            return []
        pieces, logits = self.runner.forward(work)
        plain = [w for w, count in pieces if count == 1]
        new: list[tuple[Sequence, list[int]]] = []
        each = () if len(plain) == len(logits) else logits.split([count for _, count in pieces])
        if plain:
            drawn = sample(
                torch.cat([rows for rows in each if len(rows) == 1]) if each else logits,
                [w.sequence.sampling for w in plain],
                [len(w.sequence.tokens) - w.sequence.prompt for w in plain],
            )
            new = [(w.sequence, [token]) for w, token in zip(plain, drawn, strict=True)]
        for (w, count), rows in zip(pieces, each, strict=False):
            if count > 1:
                new.append((w.sequence, decide(w.sequence, rows, proposals[w.sequence])))
        for w, _ in pieces:
            w.sequence.computed = min(w.start + w.count, len(w.sequence.tokens))
        return [(sequence, self._append(sequence, tokens)) for sequence, tokens in new]

    def _append(self, sequence: Sequence, tokens: list[int]) -> list[int]:
        """Add tokens up to the first that ends the answer; returns those that were added."""
        before = len(sequence.tokens)
        for token in tokens:
            sequence.tokens.append(token)
            if token in sequence.sampling.stop_tokens:
                sequence.finished = "stop"
            elif len(sequence.tokens) - sequence.prompt == sequence.sampling.max_tokens:
                sequence.finished = "length"
            if sequence.finished:
                self.scheduler.end(sequence)
                break
        # Accepted guesses are in the cache already; the last token never is.
        accepted = len(sequence.tokens) - before - 1
        sequence.computed += 0 if sequence.finished else accepted
        sequence.draft = []
        return sequence.tokens[before:]

    def generate(self, prompts: Row[Row[int]], samplings: Row[Sampling]) -> list[list[int]]:
        """The answers to all prompts, in their order. Raises ValueError as `add` does."""
        sequences = [self.add(p, s) for p, s in zip(prompts, samplings, strict=True)]
        while self.busy:
            self.step()
        return [sequence.answer for sequence in sequences]
