"""A short report with checked citations: `python -m agents.investigate "Who was Tesla?"`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from labkit import UsageError
from labkit.config.words import read_words

USAGE = """\
Investigate a question in a corpus, and write a short report in which every sentence is cited.

usage: python -m agents.investigate "QUESTION" [wiki=auto] [url= model=] [key=value ...]
       python -m agents.investigate evaluate=200

  wiki=auto        squad, pydoc (offline), mediawiki (Wikipedia), or auto: squad where it is
  pages=5          pages to read at most
  sentences=3      sentences of the report at most
  url=             a server with OpenAI's chat API that writes the report; else it quotes
  model=default    name of the model there
  notes=no         yes: show the plan, the pages and the notes as well
  evaluate=        so many of SQuAD's questions instead: does the report hold an accepted answer?
"""


@dataclass
class Options:
    """The settings of the command, as text."""

    wiki: str = "auto"
    pages: str = "5"
    sentences: str = "3"
    url: str = ""
    model: str = "default"
    notes: str = "no"
    evaluate: str = ""


def whole(name: str, text: str, most: int = 10_000) -> int:
    """A whole number of 1 or more. Raises UsageError for anything else."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise UsageError(f"{name}={text}: a whole number from 1 to {most:,} is needed")
    return int(text)


def choose_wiki(name: str) -> Any:
    """The wiki of that name. Raises UsageError for an unknown one."""
    from agents.wiki import MediaWiki, offline_wiki
    from labkit import paths

    if name == "mediawiki":
        return MediaWiki(cache=paths.ROOT / ".cache" / "mediawiki")
    return offline_wiki(name)


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    keys = Options.__dataclass_fields__
    questions = [word for word in words if word.partition("=")[0] not in keys]
    try:
        settings = [word for word in words if word not in questions]
        options = read_words(Options, settings, "wiki=squad")
        if options.notes not in ("yes", "no"):
            raise UsageError(f"notes={options.notes}: type notes=yes or notes=no")
        if options.evaluate:
            print(evaluate(options))
            return 0
        if len(questions) != 1 or not questions[0].strip():
            raise UsageError(
                "give one question, in quotation marks:\n"
                '    python -m agents.investigate "Who was Nikola Tesla?"'
            )
        print(answer(questions[0], options))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def answer(question: str, options: Options) -> str:
    """The report as text."""
    from agents.backends import OpenAIChat
    from agents.investigator import investigate
    from labkit.text import short

    pages, most = whole("pages", options.pages, 50), whole("sentences", options.sentences, 50)
    writer = None
    if options.url:
        chat = OpenAIChat(options.url, options.model)

        def writer(prompt: str) -> str:
            return chat.chat([{"role": "user", "content": prompt}])

    report = investigate(question, choose_wiki(options.wiki), writer, pages, most)
    shown = []
    if options.notes == "yes":
        shown += [f"query    {query}" for query in report.plan]
        shown += [f"read     [{n}] {title}" for n, (title, _) in report.pages.items()]
        shown += [f"note     [{n.page}] {short(n.sentence, 80)}" for n in report.notes] + [""]
    shown.append(report.text)
    removed = report.checked.removed
    if removed:
        shown += [
            "",
            f"{len(removed)} sentences had no passage that supports them, and were removed:",
        ]
        shown += [f"  {short(sentence, 100)}" for sentence in removed]
    return "\n".join(shown)


def evaluate(options: Options) -> str:
    """Measures over SQuAD's questions."""
    from agents.citations import content_words
    from agents.investigator import investigate
    from agents.score import normalise
    from agents.wiki import OfflineWiki, questions_of, squad_pages
    from labkit import paths

    count = whole("evaluate", options.evaluate)
    files = [folder / "squad" / "dev-v1.1.json.gz" for folder in paths.data_folders()]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UsageError(f"evaluate needs SQuAD: there is no {files[0]}; set LAB_DATA")
    wiki = OfflineWiki(squad_pages(file))
    pages, most = whole("pages", options.pages, 50), whole("sentences", options.sentences, 50)
    found = held = kept = removed = words = 0
    rows = questions_of(file, count, seed=0)
    for question, title, accepted in rows:
        report = investigate(question, wiki, None, pages, most)
        found += title in [name for name, _ in report.pages.values()]
        text = normalise(" ".join(report.checked.kept))
        held += any(normalise(one) in text for one in accepted)
        kept, removed = kept + len(report.checked.kept), removed + len(report.checked.removed)
        words += len(content_words(text))
    n = len(rows)
    return (
        f"{n} questions, {pages} pages and {most} sentences at most each\n"
        f"the question's own passage was read     {100 * found / n:.1f} %\n"
        f"the report holds an accepted answer     {100 * held / n:.1f} %\n"
        f"sentences supported by what they cite   {100 * kept / max(kept + removed, 1):.1f} %\n"
        f"content words of a report               {words / n:.0f}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
