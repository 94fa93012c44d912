"""Chats as tokens: which of them are learned, and batches of equal cost.

    tokens   ### Instruction: ... Response: | Thought ... <eos> | ### Instruction: ... | 4 2 <eos>
    mask     0   0            0   0           1       1   1       0   0            0     1 1 1

In a mixture a mask made by hand for one kind of chat is wrong for the next: a tool's chat has
several answers. So the mask follows from the template's pieces alone.

Letters: N chats, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from capstone import template
from labkit import exercise
from rlhf import Rows

Parts = list[tuple[list[int], bool]]
"""A chat's pieces as tokens, each with whether it is learned."""


def tokenize(chats: Sequence[Sequence[template.Message]], tokenizer: Any) -> list[Parts]:
    """Each chat's pieces as tokens. Pieces are tokenized one by one, and the end of text is added
    as a token, so that no token crosses from a prompt into an answer."""
    end = tokenizer.eos_token
    every = [template.pieces(chat, end) for chat in chats]
    texts = [text.removesuffix(end) for chat in every for text, _ in chat]
    rows = iter(
        tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]
    )
    stop = [tokenizer.eos_token_id]
    return [
        [([*next(rows), *(stop if learned else [])], learned) for _, learned in chat]
        for chat in every
    ]


@exercise(minutes=20)
def collate(chats: Sequence[Parts]) -> Rows:
    """Chats as rows, padded on the right with token 0, and which tokens are learned.

    Args:
        chats: N lists of parts, each a list of tokens and whether all of them are learned. A chat
            may have several learned parts, also in the middle.
    Returns:
        Rows(tokens int64 (N, T), mask bool (N, T)), T the tokens of the longest chat. The mask is
        True at every token of the learned parts, their end of text included, and nowhere else. No
        argument is changed.
    """
    width = max(sum(len(tokens) for tokens, _ in chat) for chat in chats)
    tokens = torch.zeros(len(chats), width, dtype=torch.long)
    mask = torch.zeros(len(chats), width, dtype=torch.bool)
    for row, chat in enumerate(chats):
        start = 0
        for part, learned in chat:
            tokens[row, start : start + len(part)] = torch.tensor(part, dtype=torch.long)
            mask[row, start : start + len(part)] = learned
            start += len(part)
    return Rows(tokens, mask)


@exercise(minutes=15)
def budgeted(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups of chats that fill `budget` tokens each, padding included.

    Take the chats from the shortest to the longest (of equal ones the earlier first), and add each
    to the current group as long as the group's rows times its longest length stay within the
    budget; otherwise it begins the next group. So chats of a group have similar lengths, and a step
    costs about the same whatever it holds.

    Args:
        lengths: tokens of each chat.
        budget: tokens of a group at most, rows times longest.
    Returns:
        Groups of indices into `lengths`; every index is in exactly one. None when there is no chat.
    Raises:
        ValueError when a chat alone is longer than the budget.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        length = lengths[index]
        if length > budget:
            raise ValueError(f"a chat of {length} tokens is more than the budget of {budget}")
        if not groups or (len(groups[-1]) + 1) * length > budget:
            groups.append([])
        groups[-1].append(index)
    return groups


def length_of(chat: Parts) -> int:
    """Tokens of a chat."""
    return sum(len(tokens) for tokens, _ in chat)
