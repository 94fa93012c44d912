r"""Comparisons of two answers to a dialogue, as tokens.

    Human: hello  Assistant: hi  Human: how do I ... ?  Assistant:      the dialogue, in turns
    \______ left out when long _/\_______ kept ________________/

HH-RLHF's dialogues have up to some thousand tokens. Whether an answer is good is mostly decided by
the last turns, so a long dialogue loses its first turns. Cutting it behind the context would cut
the answer off, and dropping all long rows would leave a set of short dialogues.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labkit import UsageError, exercise
from labkit.data import Preference, PreferenceData
from labkit.data.sets.preferences import read_dialogues, split
from labkit.show.console import say
from rlhf import Pair

TURN = re.compile(r"(?=\n\nHuman:|\n\nAssistant:)")
"""Where a turn of HH-RLHF begins."""
SPLITS = ("train", "valid", "test")


@exercise(minutes=15)
def recent_turns(turns: Sequence[Sequence[int]], room: int) -> list[int]:
    """The tokens of the most recent turns, as many as fit whole, in their order.

    Args:
        turns: the tokens of each turn of a dialogue, the oldest first. It is not changed.
        room: tokens that there is room for, 0 or more.
    Returns:
        The last k turns one after the other, for the largest k with which they have at most `room`
        tokens together: no turn is cut, and none is left out between two that are kept. Empty where
        even the last one does not fit.
    """
    kept: list[int] = []
    for turn in reversed(turns):
        if len(kept) + len(turn) > room:
            break
        kept = [*turn, *kept]
    return kept


class Encoded(NamedTuple):
    """Rows and their tokens, in the same order."""

    rows: list[Preference]
    pairs: list[Pair]


def encode(rows: Sequence[Preference], tokenizer: Any, context: int, answer: int) -> Encoded:
    """Rows as pairs of at most `context` tokens, with answers of at most `answer` tokens.

    Left out, and said, are rows with a longer answer, with two answers of equal tokens, and those
    whose last question does not fit beside the answers.

    Raises:
        UsageError when no row is left.
    """
    turns = [[part for part in TURN.split(row.prompt) if part] for row in rows]
    texts = {text for parts in turns for text in parts}
    texts |= {text for row in rows for text in (row.chosen, row.rejected)}
    tokens = tokens_of(sorted(texts), tokenizer)
    end, found = tokenizer.eos_token_id, Encoded([], [])
    for row, parts in zip(rows, turns, strict=True):
        chosen, rejected = [*tokens[row.chosen], end], [*tokens[row.rejected], end]
        longer = max(len(chosen), len(rejected))
        prompt = recent_turns([tokens[part] for part in parts], context - longer)
        needed = sum(len(tokens[part]) for part in parts[-2:])  # a question and "Assistant:"
        if longer <= answer and needed <= len(prompt) and chosen != rejected:
            found.rows.append(row)
            found.pairs.append(Pair(prompt, chosen, rejected))
    if not found.rows:
        raise UsageError(
            f"none of the {len(rows)} rows fits into context={context} with "
            f"answer_tokens={answer}: raise them"
        )
    if len(found.rows) < len(rows):
        say(f"{len(rows) - len(found.rows)} of {len(rows)} rows are too long and were left out")
    return found


def tokens_of(texts: Sequence[str], tokenizer: Any) -> dict[str, list[int]]:
    """The tokens of each text, none of them special."""
    if not texts:
        return {}
    names = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    return dict(zip(texts, tokenizer(list(texts), **names)["input_ids"], strict=True))


def with_files(data: PreferenceData, files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The splits of the set and of each file, by its name: {"hh_harmless": {"train": rows}, ...}.

    A hash of the dialogue decides its split, in files as in the published set, so no dialogue that
    is tested is learned from, in whichever file it stands.

    Raises:
        UsageError for a file that is not there; DataError for one in another format.
    """
    found: dict[str, dict[str, Any]] = {data.name: {name: getattr(data, name) for name in SPLITS}}
    for name in files:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UsageError(
                f"more: there is no file {name}; expected JSON lines of chosen and rejected as in "
                "HH-RLHF, plain or .gz, e.g. more=[helpful-base/train.jsonl.gz]"
            )
        found[name] = dict(split(read_dialogues(path)))
    return found
