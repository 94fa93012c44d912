"""Tokens to text while they come, and stop strings.

A token can end in the middle of a character (a byte pair need not be whole UTF-8), and the last
letters may be the beginning of a stop string: both are held back until it is clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TextStream:
    """The text of one answer, piece by piece."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, [s for s in stop if s]
        self.tokens: list[int] = []
        self.begun, self.read = 0, 0
        self.held = ""
        self.stopped = False

    def push(self, tokens: Sequence[int], last: bool = False) -> str:
        """The text that is certain now. `last`: nothing follows, so all is given out.

        When a stop string appears, the text ends before it, `stopped` is true, and nothing more
        comes.
        """
        if self.stopped:
            return ""
        self.tokens += tokens
        self.held += self._decoded(last)
        places = [self.held.find(s) for s in self.stop]
        if found := [place for place in places if place >= 0]:
            self.stopped = True
            return self.held[: min(found)]
        keep = 0 if last else self._undecided()
        ready = self.held[: len(self.held) - keep]
        self.held = self.held[len(self.held) - keep :]
        return ready

    def _decoded(self, last: bool) -> str:
        """The text of new tokens, if it ends with a whole character. A few tokens before them are
        decoded as well: some tokenizers write a token differently at the beginning."""
        before = self._text(self.begun, self.read)
        now = self._text(self.begun, len(self.tokens))
        if now.endswith("\ufffd") and not last:
            return ""
        self.begun, self.read = self.read, len(self.tokens)
        return now[len(before) :]

    def _text(self, begin: int, end: int) -> str:
        return str(self.tokenizer.decode(self.tokens[begin:end], skip_special_tokens=True))

    def _undecided(self) -> int:
        """Letters at the end that a stop string may begin with."""
        longest = max((len(s) for s in self.stop), default=0)
        for length in range(min(longest - 1, len(self.held)), 0, -1):
            if any(s.startswith(self.held[-length:]) for s in self.stop):
                return length
        return 0
