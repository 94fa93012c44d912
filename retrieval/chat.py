"""Ask questions in the terminal.

python -m retrieval.chat                       about SQuAD's passages
python -m retrieval.chat docs=notes            about the text, Markdown and PDF files in notes/
python -m retrieval.chat url=http://127.0.0.1:8000/v1 model=NAME      a language model answers
"""

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit import UsageError
from labkit.config.words import read_words

if TYPE_CHECKING:
    from retrieval.assistant import Assistant

USAGE = """\
Ask questions about documents; each answer cites the passages it stands in.

usage: python -m retrieval.chat [docs=FOLDER] [key=value ...]

  docs=squad       a folder of .txt, .md and .pdf files, or squad, or pydoc_cloze
  run=latest       the trained models: the run that finished last, or a run folder
  question=        answer this one question and end
  index=           a folder where the vectors are kept, so that the next start is quick
  url=             a server with OpenAI's chat API, whose model writes the answers
  model=default    the name of its model; a key is read from OPENAI_API_KEY
  context=2048     tokens that the model can take
  device=auto      auto, cpu, cuda, mps

In the chat: /add FILE and /remove TITLE change the memory, /documents lists it, /quit ends.
"""


@dataclass
class Options:
    """The settings of the command, as text; `read_words` checks their names."""

    docs: str = "squad"
    run: str = "latest"
    question: str = ""
    index: str = ""
    url: str = ""
    model: str = "default"
    context: str = "2048"
    device: str = "auto"


def assistant(docs: str, run: str, index: str, url: str, model: str, context: str, device: str
              ) -> "Assistant":  # fmt: skip
    """What the options ask for. Raises UsageError."""
    from retrieval.assistant import find_model

    folder = find_model(run)  # before anything slow
    if not context.isdecimal() or int(context) < 64:
        raise UsageError(f"context={context}: a whole number of at least 64 is needed")
    from labkit.machine import device as devices
    from retrieval.assistant import Assistant, open_store
    from retrieval.generate import ChatModel
    from retrieval.pipeline import Pipeline

    pipeline = Pipeline.load(folder, devices.resolve(device))
    key = os.environ.get("OPENAI_API_KEY", "")
    writer = ChatModel(url, model, key, int(context)) if url else None
    return Assistant(pipeline, open_store(pipeline, docs, index), writer)


def show(assistant: "Assistant", question: str) -> None:
    """Print the answer as it comes, then the passages it cites."""
    from retrieval.generate import addresses_model

    printed, last = "", None
    for answer in assistant.stream(question):
        if answer.text.startswith(printed):
            print(answer.text[len(printed) :], end="", flush=True)
        else:  # a citation was taken out
            print(f"\n{answer.text}", end="", flush=True)
        printed, last = answer.text, answer
    print()
    for number, hit in enumerate(last.hits if last else (), start=1):
        if last and (number in last.citations or not last.known):
            warning = "  (this passage gives a model instructions)" if addresses_model(
                hit.passage.text) else ""  # fmt: skip
            text = " ".join(hit.passage.text.split())
            print(f"  [{number}] {hit.passage.title}: {text[:160]}...{warning}")


def command(assistant: "Assistant", line: str) -> bool:
    """Carry out /add, /remove, /documents or /quit; False ends the chat. Raises UsageError."""
    from labkit import paths
    from retrieval.corpus import Document, passages_of, read_pdf, read_text

    name, _, argument = line.partition(" ")
    if name == "/quit":
        return False
    if name == "/add":
        file = paths.typed(argument.strip())
        text = read_pdf(file) if file.suffix.lower() == ".pdf" else read_text(file)
        added = assistant.store.add(passages_of(Document(file.name, text)))
        print(f"{file.name}: {len(added)} passages added")
    elif name == "/remove":
        print(f"{assistant.store.remove(argument.strip())} passages removed")
    elif name == "/documents":
        alive = assistant.store.bm25.alive
        titles = (p.title for p, here in zip(assistant.store.passages, alive, strict=True) if here)
        print("\n".join(dict.fromkeys(titles)))
    else:
        raise UsageError(f"{name} is no command; there are /add, /remove, /documents and /quit")
    return True


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        options = read_words(Options, words, "docs=FOLDER")
        ready = assistant(
            options.docs, options.run, options.index, options.url, options.model, options.context,
            options.device,
        )  # fmt: skip
        if options.question:
            show(ready, options.question)
            return 0
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(ready.store)} passages. Ask a question; /quit ends.")
    while True:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        try:
            if line.startswith("/"):
                if not command(ready, line):
                    return 0
            elif line:
                show(ready, line)
        except UsageError as error:
            print(f"error: {error}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
