"""The engine in a thread of its own: requests come in through a queue, text goes out by callback.

The engine is used by this thread alone, so it needs no locks; the web server's thread only puts
things into the inbox. While no request is on its way, the thread sleeps.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from labkit.show.console import warn
from systems.engine.engine import Engine
from systems.engine.sampling import Sampling
from systems.engine.scheduler import Sequence
from systems.text import TextStream


@dataclass(frozen=True)
class Piece:
    """What one step gave to one request."""

    text: str
    tokens: int
    finish: str | None
    """stop, length, abort or error; None while it goes on."""


@dataclass(eq=False)
class Ticket:
    """A request as the server knows it."""

    prompt: list[int]
    sampling: Sampling
    stream: TextStream
    deliver: Callable[[Piece], None]
    """Called in the engine's thread; must not block."""
    sequence: Sequence | None = None
    cancelled: bool = False


@dataclass
class Counts:
    """What has happened since the start, for the health page."""

    served: int = 0
    aborted: int = 0
    tokens: int = 0
    steps: int = 0


class Worker(threading.Thread):
    """Runs the engine until `close`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True, name="engine")
        self.engine = engine
        self.inbox: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self.tickets: dict[Sequence, Ticket] = {}
        self.counts = Counts()
        self.failure: str | None = None
        self._closing = False

    def submit(self, ticket: Ticket) -> None:
        """Hand in a request that `engine.check` has accepted."""
        self.inbox.put(ticket)
        if self.failure is not None:
            ticket.deliver(Piece("", 0, "error"))

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for this one any more: its blocks are freed before the next step."""
        ticket.cancelled = True
        self.inbox.put(ticket)

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self.inbox.put(None)
        self.join(timeout=10)

    def run(self) -> None:
        try:
            while not self._closing:
                self._take_in()
                if self.engine.busy:
                    self._step()
        except Exception as error:  # a request must not hang because the engine is gone
            self.failure = f"{type(error).__name__}: {error}"
            warn(f"the engine has failed ({self.failure}); restart the server")
            waiting = [self.inbox.get() for _ in range(self.inbox.qsize())]
            for ticket in {*self.tickets.values(), *filter(None, waiting)}:
                ticket.deliver(Piece("", 0, "error"))

    def _take_in(self) -> None:
        """Everything in the inbox; waits for something when there is nothing to do."""
        wait = not self.engine.busy
        while True:
            try:
                ticket = self.inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if ticket is None:
                return
            if ticket.cancelled:
                if ticket.sequence is not None and ticket.sequence in self.tickets:
                    del self.tickets[ticket.sequence]
                    self.counts.aborted += 1  # before the engine says that it has nothing left
                    self.engine.abort(ticket.sequence)
            else:
                ticket.sequence = self.engine.add(ticket.prompt, ticket.sampling)
                self.tickets[ticket.sequence] = ticket

    def _step(self) -> None:
        self.counts.steps += 1
        for sequence, tokens in self.engine.step():
            ticket = self.tickets[sequence]
            ended = sequence.finished is not None
            # A stop token ends the answer and is no part of its text.
            shown = tokens[:-1] if sequence.finished == "stop" else tokens
            text, finish = ticket.stream.push(shown, last=ended), sequence.finished
            if ticket.stream.stopped and not ended:
                self.engine.abort(sequence)
                finish = "stop"
            elif ticket.stream.stopped:
                finish = "stop"
            self.counts.tokens += len(tokens)
            if finish:
                del self.tickets[sequence]
                self.counts.served += 1
            ticket.deliver(Piece(text, len(tokens), finish))
