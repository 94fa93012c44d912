"""Constrained decoding: a model can only write what a regular expression accepts.

A regular expression is turned into an automaton over the tokens of a vocabulary. While the model
writes, a mask forbids each token after which the expression could no longer match. So a call is
well-formed because nothing else can be written, not because the model is good.

    Automaton          states are derivatives (regular.py); next_state[state, token]
    allowed            the mask: bool (B, V)
    Constrained        chooses tokens for `pretraining.generate`

A model could also write numbers for ever and never close a bracket. So the automaton knows how many
tokens each state still needs at least, and the mask forbids what could not be ended in time.
Willard and Louf 2023 (outlines), section 3, has the automaton but not this bound.

Letters: B rows, V tokens of the vocabulary, S states.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from agents.regular import (
    NOTHING,
    Regex,
    alt,
    chars,
    derivative,
    maybe,
    nullable,
    other_than,
    plus,
    seq,
    star,
    text,
)
from labkit import exercise

DEAD = -1
"""In place of a next state: the text cannot match any more."""
FAR = 1_000_000
"""Tokens to the end of a state that has no way to the end."""


@exercise(minutes=20)
def allowed(next_state: Tensor, distance: Tensor, state: Tensor, left: int) -> Tensor:
    """Which tokens may come next: bool (B, V).

    A token may, when the automaton has a next state for it (not DEAD) from which the end can still
    be reached in time: `left` counts the tokens that may be written in all, this one included, so
    the next state's distance must be at most left - 1.

    Args:
        next_state: int64 (S, V), DEAD where the text could not match any more.
        distance: int64 (S,), tokens that each state needs at least to the end; 0 at the end.
        state: int64 (B,), of each row. Rows are independent.
        left: 1 or more.
    """
    following = next_state[state]
    return (following != DEAD) & (distance[following] <= left - 1)


class Automaton:
    """A regular expression over the tokens of a vocabulary.

    The token `end` closes a text that matches; state 0 is the beginning, and the last state the
    end, which has only `end` behind it.
    """

    def __init__(self, regex: Regex, pieces: Sequence[str], end: int) -> None:
        """`pieces` are the tokens' texts; those of special tokens are empty, and never allowed.

        Raises ValueError when no row of tokens spells a text that matches.
        """
        step = cache(derivative)
        states: dict[Regex, int] = {regex: 0}
        rows: list[list[int]] = []
        queue = [regex]
        for r in queue:  # grows while it is read
            row = []
            for piece in pieces:
                following = r if piece else NOTHING
                for c in piece:
                    following = step(following, c)
                    if following == NOTHING:
                        break
                if following != NOTHING and following not in states:
                    states[following] = len(states)
                    queue.append(following)
                row.append(states.get(following, DEAD))
            rows.append(row)
        final = len(queue)
        for r, row in zip(queue, rows, strict=True):
            row[end] = final if nullable(r) else DEAD
        rows.append([final if token == end else DEAD for token in range(len(pieces))])
        self.next_state = torch.tensor(rows)  # (S, V)
        self.distance = distances(self.next_state, final)
        if self.distance[0] >= FAR:
            raise ValueError("no text of this vocabulary matches the regular expression")

    @property
    def shortest(self) -> int:
        """Tokens of the shortest text that matches, with `end`."""
        return int(self.distance[0])

    def to(self, device: torch.device | str) -> Automaton:
        """Move the tables; returns itself."""
        self.next_state, self.distance = self.next_state.to(device), self.distance.to(device)
        return self


def distances(next_state: Tensor, final: int) -> Tensor:
    """Tokens from each state to `final`, at least: int64 (S,); FAR where there is no way."""
    distance = torch.full((len(next_state),), FAR)
    distance[final] = 0
    for _ in range(len(next_state)):  # each round settles the states that are one token further
        ahead = torch.where(next_state == DEAD, FAR, distance[next_state])
        closer = torch.minimum(distance, ahead.amin(dim=1) + 1)
        if torch.equal(closer, distance):
            break
        distance = closer
    return distance


class Constrained:
    """Chooses tokens by the automaton's mask: the `chooser` of `pretraining.generate`."""

    def __init__(
        self, automaton: Automaton, rows: int, count: int, temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        """For `rows` texts of at most `count` tokens, the end included; temperature 0 is greedy.

        Raises ValueError when the shortest text that matches is longer than that.
        """
        if count < automaton.shortest:
            raise ValueError(
                f"{count} tokens are too few: the shortest text that matches has "
                f"{automaton.shortest}"
            )
        self.automaton, self.left = automaton, count
        self.temperature, self.generator = temperature, generator
        self.state = automaton.next_state.new_zeros(rows)

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (B, V) to tokens int64 (B, 1), of the likeliest that are allowed."""
        table = self.automaton
        mask = allowed(table.next_state, table.distance, self.state, self.left)
        logits = logits.float().masked_fill(~mask, -torch.inf)
        if self.temperature == 0:
            token = logits.argmax(dim=-1)
        else:
            share = (logits / self.temperature).softmax(dim=-1)
            token = torch.multinomial(share, 1, generator=self.generator).squeeze(1)
        self.state = table.next_state[self.state, token]
        self.left -= 1
        return token[:, None]


# --- the grammar of a ReAct step ---


def number() -> Regex:
    """12 or 12.5."""
    digits = plus(chars("0123456789"))
    return seq(digits, maybe(seq(chars("."), digits)))


def arithmetic(depth: int = 2) -> Regex:
    """Expressions of the calculator with up to `depth` parentheses inside each other."""
    atom = number()
    if depth > 0:
        atom = alt(atom, seq(chars("("), arithmetic(depth - 1), chars(")")))
    signed = seq(maybe(chars("-")), atom, maybe(chars("%")))
    operator = alt(chars("+-*/"), text("**"))
    return seq(signed, star(seq(operator, signed)))


def react_step(tools: Sequence[str], depth: int = 2) -> Regex:
    """One step: a thought, and a call of one of these tools or of `finish`.

    `calculate` takes arithmetic, the others any text on one line, without brackets, that is not
    empty.
    """
    free = plus(other_than("\n[]"))
    calls = [
        seq(text(f"{name}["), arithmetic(depth) if name == "calculate" else free, chars("]"))
        for name in (*tools, "finish")
    ]
    return seq(text("\nThought: "), star(other_than("\n")), text("\nAction: "), alt(*calls))
