"""Speculative decoding: guess several tokens, check them in one step (Leviathan et al. 2023).

Checking k guesses costs one step of the large model, as one token does. The rule of acceptance
makes the result exact: it has the distribution that the large model alone would have, however bad
the guesses are (appendix A.1).

Letters: k guesses, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Row

import torch
from torch import Tensor

from labkit import exercise
from systems.engine.runner import Runner
from systems.engine.sampling import distribution, pick, uniforms
from systems.engine.scheduler import Sequence, Work

GUESS, ACCEPT, LAST = 1 << 20, 1 << 21, 1 << 22
"""Streams of random numbers (see `sampling.uniforms`), far from those of plain sampling."""


@exercise(minutes=25)
def accept(
    guesses: Row[int], target: Tensor, proposal: Tensor, coins: Row[float], last: float
) -> list[int]:
    """The tokens that follow: the guesses up to the first rejected one, and one more
    (Leviathan et al. 2023, algorithm 1).

    Guess x_i is accepted if coin_i · q_i(x_i) < p_i(x_i), which happens with probability
    min(1, p/q). At the first rejection the token comes from the residual max(0, p_i - q_i), scaled
    to sum 1, and what was guessed after it is dropped. If all are accepted, one more token comes
    from p_k. Tokens are drawn by `pick(rows, uniform)` (sampling.py), from rows (1, V) that need
    not sum to 1, with `last` as the uniform number, a tensor (1,).

    Args:
        guesses: k tokens, drawn from the proposal; k may be 0.
        target: p, (k + 1, V), the distributions of the large model at the guesses and after them.
        proposal: q, (k, V). coins: k numbers from 0 to below 1. last: one more.
    Returns:
        1 to k + 1 tokens.
    """
    uniform = torch.tensor([last], dtype=torch.float64)
    for i, guess in enumerate(guesses):
        if coins[i] * float(proposal[i, guess]) >= float(target[i, guess]):
            residual = (target[i] - proposal[i]).clamp(min=0)
            return [*guesses[:i], int(pick(residual[None], uniform))]
    return [*guesses, int(pick(target[len(guesses)][None], uniform))]


def decide(sequence: Sequence, logits: Tensor, proposal: Tensor) -> list[int]:
    """The next tokens of a sequence, from the logits (k + 1, V) at its last token and guesses."""
    place, seed, k = len(sequence.answer), sequence.sampling.seed, len(sequence.draft)
    coins = uniforms([seed] * k, range(place, place + k), ACCEPT).tolist()
    last = float(uniforms([seed], [place], LAST))
    target = distribution(logits, sequence.sampling)
    return accept(sequence.draft, target, proposal, coins, last)


class NGram:
    """Guess that what followed the last n tokens earlier follows again (prompt lookup). Costs
    nothing, and is good where answers repeat their prompt. The proposal is certain of its guess."""

    def __init__(self, vocabulary: int, length: int = 2) -> None:
        self.vocabulary, self.length = vocabulary, length

    def propose(self, work: Row[Work]) -> dict[Sequence, Tensor]:
        """Fill `draft` of each sequence with up to count - 1 guesses; returns q of each, (k, V)."""
        found = {}
        for each in work:
            row = each.sequence.tokens
            room = each.count - 1 if each.writes else 0
            tail, guesses = row[-self.length :], list[int]()
            for i in range(len(row) - self.length - 1, -1, -1):
                if room and row[i : i + self.length] == tail:
                    guesses = row[i + self.length : i + self.length + room]
                    break
            each.sequence.draft = guesses
            index = torch.tensor(guesses, dtype=torch.int64)
            found[each.sequence] = torch.nn.functional.one_hot(index, self.vocabulary).double()
        return found


class DraftModel:
    """A smaller model guesses. Its cache has the blocks of the large one's: the same tables serve
    both, and what one shares, the other shares."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def propose(self, work: Row[Work]) -> dict[Sequence, Tensor]:
        """As NGram's. Prompts are read, so that the cache has what the large model's has."""
        writing = [w for w in work if w.writes]
        reading = [w for w in work if not w.writes]
        if reading:
            self.runner.forward(reading)
        proposals: dict[Sequence, list[Tensor]] = {w.sequence: [] for w in work}
        for each in work:
            each.sequence.draft = []
        for ahead in range(max((w.count for w in writing), default=0)):
            now = [Work(w.sequence, w.start + ahead, 1) for w in writing if ahead < w.count]
            counts = {w.sequence: w.count for w in writing}
            pieces, logits = self.runner.forward(now)
            for (one, _), row in zip(pieces, logits.split(1), strict=True):
                sequence = one.sequence
                if ahead + 1 == counts[sequence]:
                    continue  # the last guess was read only to be in the cache
                q = distribution(row, sequence.sampling)
                place = len(sequence.answer) + ahead
                uniform = uniforms([sequence.sampling.seed], [place], GUESS)
                sequence.draft.append(int(pick(q, uniform)))
                proposals[sequence].append(q)
        empty = torch.empty(0, self.runner.vocabulary, dtype=torch.float64)
        return {s: torch.cat(rows) if rows else empty for s, rows in proposals.items()}
