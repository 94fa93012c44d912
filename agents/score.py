"""Exact match and F1 of answers, as SQuAD's and HotpotQA's own scripts compute them.

Rajpurkar et al. 2016, section 6.1. Both compare normalised texts: `The Beatles!` is `beatles`.
"""

from __future__ import annotations

import re
import string
from collections import Counter

from labkit import exercise

PUNCTUATION = str.maketrans("", "", string.punctuation)


@exercise(minutes=10)
def normalise(text: str) -> str:
    """A text as answers are compared: in this order

    1. lower case;
    2. every character of string.punctuation removed (not replaced by a space);
    3. the whole words a, an and the replaced by a space;
    4. runs of white space made one space, and none at either end.

    A number stays a number: without care, 5.64 would be 564 and -4 would be 4, and wrong answers
    right. So a `.` or a `,` between two digits stays, and so does a `-` directly before a digit at
    the beginning of the text or after white space. (SQuAD's script removes those as well.)
    """
    text = text.lower()
    kept = re.sub(r"(?<=\d)[.,](?=\d)|(?:(?<=\s)|^)-(?=\d)", lambda m: KEEP[m[0]], text)
    kept = kept.translate(PUNCTUATION).translate(RESTORE)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


KEEP = {".": "\ue000", ",": "\ue001", "-": "\ue002"}
"""Stand-ins from Unicode's private area for the marks that belong to a number."""
RESTORE = str.maketrans({stand_in: mark for mark, stand_in in KEEP.items()})


def exact_match(answer: str | None, truth: str) -> float:
    """1.0 when both are the same after `normalise`, else 0.0; None is no answer."""
    return float(answer is not None and normalise(answer) == normalise(truth))


@exercise(minutes=15)
def f1(answer: str | None, truth: str) -> float:
    """Harmonic mean of precision and recall over the words of both texts, after `normalise`.

    A word counts as often as it occurs in both. Where one of them has no words, it is 1.0 when
    the other has none either, else 0.0; no answer (None) is 0.0.
    """
    if answer is None:
        return 0.0
    said, wanted = normalise(answer).split(), normalise(truth).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))
