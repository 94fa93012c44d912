"""Texts as rows of tokens, and batches of them: every token is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from agents.policy import Lessons


class Texts(Lessons):
    """As the lessons of the agent, but the model writes everything itself."""

    def __init__(self, texts: Sequence[str], tokenizer: Any, context: int) -> None:
        """Raises UsageError when a text is longer than the context."""
        super().__init__(texts, tokenizer, context)
        place = torch.arange(self.rows.shape[1])
        self.own = place < torch.from_numpy(self.lengths)[:, None]
