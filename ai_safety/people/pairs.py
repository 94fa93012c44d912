"""Comparisons in memory, and what one step learns from them.

Letters: P pairs, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ai_safety.people.comparisons import Encoded, encode
from labkit.data import Preference
from labkit.show.console import say
from pretraining import GPT
from rlhf import RewardModel, Rows, table, token_logps


class Lengths(Protocol):
    """The settings that say how long and how many rows may be."""

    context: int
    answer_tokens: int
    tests: int
    looked_at: int


@dataclass(frozen=True)
class Sources:
    """All comparisons: one set for training and one for validation, a test of each source."""

    train: Encoded
    valid: Encoded
    test: Mapping[str, Encoded]

    @classmethod
    def encoded(
        cls, splits: Mapping[str, Mapping[str, Sequence[Preference]]], tokenizer: Any, model: GPT,
        lengths: Lengths,
    ) -> Sources:  # fmt: skip
        """Of the splits of each source, in the tokens of a model. Raises UsageError as `encode`."""
        context, most = lengths.context, model.shape.context
        if context > most:
            say(f"context={context} is more than the base's {most}: rows have {most} tokens")
            context = most

        def of(rows: Sequence[Preference]) -> Encoded:
            return encode(rows, tokenizer, context, min(lengths.answer_tokens, context - 1))

        together = {
            name: [row for each in splits.values() for row in each[name]]
            for name in ("train", "valid")
        }
        return cls(
            of(together["train"]),
            of(together["valid"][: lengths.looked_at]),
            {name: of(each["test"][: lengths.tests]) for name, each in splits.items()},
        )

    def table(self, device: Any) -> Rows:
        """The training pairs in memory, (P, 2, T): the chosen answer at [:, 0]."""
        return table(self.train.pairs, device)


def imitation_loss(model: GPT, rows: Rows, index: Tensor) -> Tensor:
    """Mean negative log-likelihood of the tokens of the preferred answers, in nats: a scalar."""
    chosen = Rows(*(part[index.to(part.device), 0] for part in rows)).trimmed()
    return -token_logps(model, chosen).sum() / chosen.mask.sum()


def rewarded(judge: RewardModel, rows: Rows, index: Tensor) -> Tensor:
    """The rewards of both answers of the pairs with these numbers: (P, 2)."""
    rewards: Tensor = judge(Rows(*(part[index.to(part.device)] for part in rows)).trimmed())
    return rewards
