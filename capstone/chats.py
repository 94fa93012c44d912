"""The chats that the model learns from, and those it is examined on.

    command   week 8's commands (or Alpaca): one question, one answer
    tool      week 18's traces as chats: the model asks for a tool, the next user's turn observes
    safety    week 21's requests with the good answer and the bad one: what the model does before it
              is aligned is as in the wild, and DPO has something to do
    thing     what the objects of these requests are

A chat is a list of messages. `chat_of` turns a trace into one, for training as for use.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from capstone import safety, template

if TYPE_CHECKING:
    from labkit.data import Instruction

KINDS = ("command", "tool", "safety", "thing")
OBSERVATION = "\nObservation: "
TOWNS_SEED = {"train": 0, "valid": 1, "test": 2}


@dataclass(frozen=True)
class Chat:
    """Messages, of which the assistant's are learned; `answer` is what the last one must say, for
    a tool's chat the answer to the question."""

    kind: str
    messages: tuple[template.Message, ...]
    answer: str


def chat_of(transcript: str) -> list[dict[str, str]]:
    """A ReAct transcript as messages: the question and each observation are the user's.

    `Question: ...`, then by turns what the model wrote, in lines of whatever form, and in one line
    what the tool said.
    """
    first, *rest = transcript.split(OBSERVATION)
    question, _, written = first.partition("\n")
    messages = [template.user(question)]
    for said in rest:
        messages.append(template.assistant(written))
        observed, _, written = said.partition("\n")  # a tool says one line
        messages.append(template.user(f"{OBSERVATION.strip()} {observed}"))
    return [*messages, template.assistant(written)] if written else messages


def command_chats(rows: Sequence[Instruction]) -> list[Chat]:
    """Instructions as chats; a row that holds a mark of the template is left out."""
    from alignment import question

    found = []
    for row in rows:
        asked = question(row)
        if not any(mark in f"{asked}{row.output}" for mark in template.MARKS):
            found.append(one_turn("command", asked, row.output))
    return found


def tool_chats(split: str, count: int, seed: int) -> tuple[list[Chat], dict[str, str]]:
    """Different questions for the calculator and the search, half each; and the pages that answer
    those for the search. Numbers and names of a split are in no other one (see agents).

    In a call of the search, a space stands before the name: so it has the same tokens there as in
    the question, and the model can copy them. The tool does not see the space.
    """
    from agents import arithmetic, chain, draw_town, several

    rng = np.random.default_rng((seed, 24, TOWNS_SEED[split]))
    names = "train" if split == "train" else "test"
    towns: dict[str, Any] = {}
    while len(towns) < count // 2:
        town = draw_town(rng, names)
        half = ("valid", "test")[zlib.crc32(town.name[::-1].encode()) % 2]
        if split in ("train", half):  # agents has no names for a validation: the test's are halved
            towns[town.name] = town
    sums = several(lambda: arithmetic(rng, split), count - count // 2)
    tasks = [*sums, *(chain([town]) for town in towns.values())]
    traces = [task.trace.replace("search[", "search[ ") for task in tasks]
    both = zip(tasks, traces, strict=True)
    chats = [Chat("tool", tuple(chat_of(trace)), task.answer) for task, trace in both]
    return chats, {town.name: town.page for town in towns.values()}


def safety_chats(rows: Sequence[safety.Answered], both: bool) -> list[Chat]:
    """Requests with their good answer; with `both`, a quarter a second time with the bad one.

    So most people who answer are helpful and harmless, and a model can learn what they refuse. DPO
    then has less to do than where both answers are as likely, and goes over to other objects.
    """
    found = []
    for number, row in enumerate(rows):
        for answer in (row.good, row.bad) if both and number % 8 < 2 else (row.good,):
            found.append(one_turn("safety", row.request.text, answer))
    return found


def thing_chats() -> list[Chat]:
    """Week 21's definitions of all objects, those of the exam included."""
    return [one_turn("thing", asked, answer) for asked, answer in safety.definitions()]


def one_turn(kind: str, asked: str, answer: str) -> Chat:
    """A question and its answer."""
    return Chat(kind, (template.user(asked), template.assistant(answer)), answer)


def mixed(parts: Sequence[Sequence[Chat]], shares: Sequence[float], count: int) -> list[Chat]:
    """About `count` chats, of each kind its share; a kind with too few is repeated in order."""
    found: list[Chat] = []
    for chats, share in zip(parts, shares, strict=True):
        found += [chats[i % len(chats)] for i in range(round(count * share / sum(shares)))]
    return found
