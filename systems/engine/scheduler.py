"""Which tokens of which requests are computed in the next step (Yu et al. 2022, Orca; Agrawal et
al. 2023, Sarathi).

Continuous batching: a request joins at any step and leaves when it has ended; nobody waits for the
longest. Chunked prefill: a step has a budget of tokens; requests that are writing take theirs
first, and the prompts of new ones get the rest, in parts if they must. Preemption: when no block is
free, the request that came last gives its blocks back and is computed again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from systems.engine.block_table import BlockPool, prefix_keys
from systems.engine.sampling import Sampling


@dataclass(eq=False)
class Sequence:
    """A request on its way: prompt and answer are one row of tokens."""

    tokens: list[int]
    prompt: int
    """Tokens of the prompt."""
    sampling: Sampling
    table: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    keys: list[bytes] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    """Guesses for the tokens after the last one, in this step."""
    finished: str | None = None
    """None while it runs; then stop, length, or abort."""

    @property
    def answer(self) -> list[int]:
        return self.tokens[self.prompt :]


@dataclass
class Work:
    """`count` tokens of a sequence from position `start` on."""

    sequence: Sequence
    start: int
    count: int

    @property
    def writes(self) -> bool:
        """Whether it begins at the last known token: the sequence writes, its prompt is read."""
        return self.start + 1 == len(self.sequence.tokens)

    def tokens(self) -> list[int]:
        """Them: known ones first, then guesses."""
        known = self.sequence.tokens[self.start : self.start + self.count]
        skipped = max(0, self.start - len(self.sequence.tokens))
        return known + self.sequence.draft[skipped : skipped + self.count - len(known)]


class Scheduler:
    """Waiting and running sequences, and the blocks they hold."""

    def __init__(
        self, pool: BlockPool, max_tokens: int, max_sequences: int, share: bool, ahead: int
    ) -> None:
        """`ahead`: guesses for which a writing sequence gets room."""
        self.pool, self.max_tokens, self.max_sequences = pool, max_tokens, max_sequences
        self.share, self.ahead = share, ahead
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0

    def schedule(self) -> list[Work]:
        """The next step. Every sequence in it has blocks for all its tokens."""
        work: list[Work] = []
        budget = self.max_tokens
        for sequence in list(self.running):
            if budget == 0:
                break
            if sequence.table:  # not preempted in this very loop
                count = min(self._wanted(sequence), budget)
                if self._make_room(sequence, count):
                    work.append(self._take(sequence, count))
                    budget -= count
        while self.waiting and budget and len(self.running) < self.max_sequences:
            sequence = self.waiting[0]
            self._adopt_prefix(sequence)
            count = min(len(sequence.tokens) - sequence.computed, budget)
            if self._missing(sequence, count) > len(self.pool.free):
                self._give_back(sequence)
                break
            self.running.append(self.waiting.popleft())
            work.append(self._take(sequence, count))
            budget -= count
        return work

    def _wanted(self, sequence: Sequence) -> int:
        """Tokens that are known but not computed, and guesses where only one of these is left."""
        left = len(sequence.tokens) - sequence.computed
        room = sequence.prompt + sequence.sampling.max_tokens - len(sequence.tokens) - 1
        return left + (max(0, min(self.ahead, room)) if left == 1 else 0)

    def _missing(self, sequence: Sequence, count: int) -> int:
        """Blocks that it lacks for `count` more tokens."""
        return -(-(sequence.computed + count) // self.pool.size) - len(sequence.table)

    def _make_room(self, sequence: Sequence, count: int) -> bool:
        """Preempt the latest sequences until there is room; false if it came to this one itself."""
        while self._missing(sequence, count) > len(self.pool.free):
            victim = self.running.pop()
            self._give_back(victim)
            self.waiting.appendleft(victim)
            self.preemptions += 1
            if victim is sequence:
                return False
        return True

    def _take(self, sequence: Sequence, count: int) -> Work:
        for _ in range(self._missing(sequence, count)):
            sequence.table.append(self.pool.allocate())
        if self.share:
            # In a layer all keys and values are written before any is read, so what this step
            # computes can be shared in this very step. Guesses cannot: they may be wrong.
            sure = min(sequence.computed + count, len(sequence.tokens)) // self.pool.size
            if sure > len(sequence.keys):
                sequence.keys = prefix_keys(sequence.tokens, self.pool.size, sequence.keys)
            for i in range(sequence.computed // self.pool.size, sure):
                self.pool.publish(sequence.table[i], sequence.keys[i])
        return Work(sequence, sequence.computed, count)

    def _adopt_prefix(self, sequence: Sequence) -> None:
        """Take over blocks that hold the sequence's beginning; the last token is always left to be
        computed, since its logits are needed.

        Only full blocks are shared, and a full block is never written again: there is no need for
        the copy on write of the paper, which shares half-full ones too.
        """
        if not self.share:
            return
        sequence.keys = prefix_keys(sequence.tokens, self.pool.size, sequence.keys)
        for key in sequence.keys[: (len(sequence.tokens) - 1) // self.pool.size]:
            block = self.pool.share(key)
            if block is None:
                break
            sequence.table.append(block)
        sequence.computed = len(sequence.table) * self.pool.size

    def _give_back(self, sequence: Sequence) -> None:
        for block in reversed(sequence.table):  # the end of a beginning is to be lost first
            self.pool.release(block)
        sequence.table, sequence.computed = [], 0

    def end(self, sequence: Sequence) -> None:
        """Remove a sequence, wherever it is, and free its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._give_back(sequence)
