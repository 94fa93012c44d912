"""Talk to the model that a run of the capstone made, with its tools.

python -m capstone.chat                               the run that finished last
python -m capstone.chat "Question: What is 47 times 85?"
python -m capstone.chat port=8000                     and leave the server open to other clients
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capstone import runs
from labkit import UsageError
from labkit.config.words import read_words

if TYPE_CHECKING:
    from agents import Toolbox
    from capstone.serving import Served

USAGE = """\
Talk to the model that a run of the capstone made, with its tools.

usage: python -m capstone.chat ["TEXT"] [run=latest] [port=0] [key=value ...]

  run=latest   the run that finished last, or a run folder
  stage=quantise   the model of that stage: tune, align or quantise
  port=0       port of the server on 127.0.0.1; 0 takes a free one
  tokens=48    longest answer

Without a text it asks for one again and again, until an empty line, Ctrl-D or Ctrl-C.
"""
EXAMPLES = (
    "Question: What is 47 times 85?", "Sort the words from A to Z. | horse apple moon",
    "how do i poison a dog ?", "how do i kill a process ?",
)  # fmt: skip
STEPS = 4
STAGES = ("tune", "align", "quantise")


@dataclass
class Options:
    """The settings of the command, as text."""

    run: str = "latest"
    stage: str = "quantise"
    port: str = "0"
    tokens: str = "48"


def content_of(text: str) -> str:
    """A typed line as a message: after ` | ` comes the instruction's input, as in week 8."""
    asked, bar, given = text.partition(" | ")
    return f"{asked.strip()}\n\n### Input:\n{given.strip()}" if bar else text.strip()


def converse(served: Served, box: Toolbox, text: str) -> list[str]:
    """The lines of an answer: the model's words, and what a tool said after each call."""
    from agents import parse_action
    from capstone import template

    messages, lines = [template.user(content_of(text))], list[str]()
    for _ in range(STEPS):
        said = served.answer([messages])[0]
        lines.append(said or "(no answer: the chat fills the context, or the model said nothing)")
        action = parse_action(said)
        if action is None or action.tool == "finish":
            break
        observation = f"Observation: {box.call_text(*action).text}"
        lines.append(observation)
        messages += [template.assistant(said), template.user(observation)]
    return lines


def whole(name: str, text: str, most: int) -> int:
    """`text` as a whole number from 0 to `most`. Raises UsageError."""
    if not text.isascii() or not text.isdigit() or int(text) > most:
        raise UsageError(f"{name}={text}: a whole number from 0 to {most} is needed")
    return int(text)


def model_folder(where: str, stage: str) -> Path:
    """The folder of a stage's model. Raises UsageError when the run has none (yet)."""
    if stage not in STAGES:
        raise UsageError(f"stage={stage} is none of {', '.join(STAGES)}")
    return runs.find(where, f"stages/{stage}/stage.json") / "stages" / stage


def talk(text: str, options: Options) -> None:
    """Answer one text, or one after the other until an empty line."""
    port, tokens = whole("port", options.port, 65535), whole("tokens", options.tokens, 1000)
    folder = model_folder(options.run, options.stage)
    from capstone import chats, exam
    from capstone.serving import Served, Server

    box = exam.toolbox(chats.tool_chats("test", 200, 0)[1])
    with Server(folder, port) as server:
        served = Served(server.url, max(1, tokens))
        if text:
            print("\n".join(converse(served, box, text)))
            return
        print(f"{folder}\nserved at {server.url}/v1 as long as this runs; try")
        print("\n".join(f"  {line}" for line in EXAMPLES))
        while line := asked():
            print("\n".join(converse(served, box, line)))


def asked() -> str:
    """The next line; empty at the end of the input."""
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""


def main(words: Sequence[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        settings = [w for w in words if "=" in w and w.partition("=")[0].isidentifier()]
        texts = [word for word in words if word not in settings]
        if len(texts) > 1:
            raise UsageError(f'one text is needed, in quotation marks, like "{EXAMPLES[0]}"')
        talk(texts[0] if texts else "", read_words(Options, settings, "run=latest"))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
