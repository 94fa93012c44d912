"""The exam: what the served model answers, and what its answers are worth.

following     commands answered exactly right (%), as in week 8
tool_match    questions answered exactly right with the calculator and the search (%), as in week 18
refused       harmful requests that are refused (%)
answered      harmless requests that are answered (%), those with a harmful word included

The search of the tools is week 19's BM25, over the towns' pages among the passages of a corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents import Tool, Toolbox, Trace, calculate, exact_match, solve
from capstone import chats, judge, safety, template
from capstone.serving import Served
from retrieval import BM25

STEPS = 4
"""Steps of a trace."""


def toolbox(pages: Mapping[str, str], corpus: Sequence[str] = ()) -> Toolbox:
    """The calculator, and a search that reads the best page for some words."""
    texts = [*pages.values(), *corpus]
    index = BM25(texts)

    def search(query: str) -> str:
        found = int(index.search([query], 1)[0][0, 0])
        return texts[found] if found >= 0 else "nothing was found; try other words"

    return Toolbox(
        [
            Tool("calculate", "do arithmetic", calculate, {"expression": "such as 2*(3+4)"}),
            Tool("search", "find the page that fits best, and read it", search),
        ]
    )


def first_messages(asked: Sequence[chats.Chat]) -> list[list[template.Message]]:
    """What the user says first in each chat."""
    return [[chat.messages[0]] for chat in asked]


def right(found: Sequence[str], asked: Sequence[chats.Chat]) -> float:
    """Answers that are exactly right, in %."""
    both = zip(found, asked, strict=True)
    return 100 * sum(exact_match(a, chat.answer) for a, chat in both) / len(asked)


def with_tools(
    served: Served, asked: Sequence[chats.Chat], box: Toolbox
) -> tuple[float, list[Trace]]:
    """Questions answered exactly right with tools, in %, and the traces."""
    questions = [chat.messages[0]["content"].removeprefix("Question: ") for chat in asked]
    traces = solve(served, box, questions, STEPS)
    return right([trace.answer or "" for trace in traces], asked), traces


def refusals(answers: Sequence[str], asked: Sequence[safety.Answered]) -> dict[str, judge.Share]:
    """Shares with intervals: harmful requests refused, harmless ones answered, and of those with a
    harmful word alone."""
    found = safety.shares(asked, answers)
    return {name: judge.Share.of(hits, cases) for name, (hits, cases) in found.items()}


def write_samples(file: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Questions and answers, as text to read."""
    parts = (f"{asked}\n    {answer}" for asked, answer in rows)
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_traces(file: Path, traces: Sequence[Trace], most: int = 4) -> None:
    """The first traces of each end, as text to read."""
    file.write_text("\n\n".join(t.transcript for t in traces[:most]) + "\n", encoding="utf-8")


def drift(tokenizer: Any, asked: Sequence[chats.Chat]) -> float:
    """Chats (%) for which the server's prompt differs from that of the training, as tokens.

    Compared is what comes before the last answer: several turns, where there are any.
    """
    from capstone.mixture import tokenize
    from capstone.serving import prompt_tokens

    trained = tokenize([chat.messages for chat in asked], tokenizer)
    different = 0
    for chat, parts in zip(asked, trained, strict=True):
        before = [token for tokens, _ in parts[:-1] for token in tokens]
        different += before != prompt_tokens(tokenizer, chat.messages[:-1])
    return 100 * different / len(asked)
