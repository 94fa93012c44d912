"""Was the test in the training text? N-gram overlap, and canaries.

    contaminated   a test text shares an n-gram of words with the training texts
                   Brown et al. 2020 (GPT-3), appendix C: n = 13
    exposure       does a model know a secret line by heart? Carlini et al. 2019, section 4.2

Neither sees a paraphrase. So the week also asks with other wordings and other numbers.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Sequence

from labkit import exercise


def words(text: str) -> list[str]:
    """Words and numbers in lower case, without punctuation, as GPT-3's appendix does it."""
    return re.findall(r"[^\W_]+", text.lower())


@exercise(minutes=15)
def contaminated(tests: Sequence[str], training: Iterable[str], n: int = 13) -> list[bool]:
    """For each test text, whether it shares an n-gram with any of the training texts.

    An n-gram is n words (see `words`) in a row of one text; none goes from one text into the next.
    A test text of fewer than n words counts as one gram of its own length: it is contaminated when
    all of its words stand in a row in a training text. One without words is never contaminated.
    """
    grams = [
        {tuple(w[i : i + n]) for i in range(max(1, len(w) - n + 1))} for w in map(words, tests)
    ]
    lengths = {len(gram) for own in grams for gram in own} - {0}
    wanted = set().union(*grams)
    found: set[tuple[str, ...]] = set()
    for text in training:
        w = words(text)
        for length in lengths:
            found |= {tuple(w[i : i + length]) for i in range(len(w) - length + 1)} & wanted
    return [bool(own & found) for own in grams]


def canary(seed: int) -> str:
    """A line that stands in a test file and nowhere else: whoever finds it in a training text, or
    in what a model writes, knows that the test was in it (BIG-bench, 2022, does the same)."""
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"hands-on-ai-lab/agents/{seed}")
    return f"This line must not be trained on. canary {number}"


@exercise(minutes=10)
def exposure(loss: float, others: Sequence[float]) -> float:
    """Exposure of a canary in bits: log2 of the number of candidates, minus log2 of its rank.

    Candidates are the canary itself and `others`, lines of the same form that were never in any
    text. Its rank is 1 when no other line has a lower loss under the model, 2 when one has, and so
    on; lines of the same loss do not count as lower. Unknown lines have about 1 bit, one that is
    known by heart log2(1 + len(others)).
    """
    rank = 1 + sum(other < loss for other in others)
    return math.log2(1 + len(others)) - math.log2(rank)
