"""Traces as a page: `python -m agents.show traces=latest`."""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.react import Trace, read_traces
from labkit import UsageError, paths
from labkit.config.words import read_words
from labkit.files import write_text
from labkit.run import folders

USAGE = """\
Make a page of an agent's traces.

usage: python -m agents.show [traces=latest] [out=FILE] [only=wrong]

  traces=latest    the run that finished last, or a traces.jsonl
  only=all         all, or limit: only those that the step limit ended
  n=50             traces at most
  out=             file to write; beside the traces, with the ending .html, if left out
"""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46em; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff }
article { border: 1px solid #ccc; border-radius: 6px; margin: 1em 0; padding: .6em 1em }
h2 { font-size: 1em; margin: .2em 0 .6em } pre { margin: .2em 0; white-space: pre-wrap }
.model { color: #14507a } .tool { color: #555; border-left: 3px solid #bbb; padding-left: .6em }
.error { color: #a02020; border-left-color: #a02020 } .ended { font-size: .85em; color: #666 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } .model { color: #8ec7f0 } .tool { color: #aaa }
  .error { color: #f08a8a } article { border-color: #444 } }
"""


@dataclass
class Options:
    """The settings of the command, as text."""

    traces: str = "latest"
    only: str = "all"
    n: str = "50"
    out: str = ""


def page(traces: Sequence[Trace], title: str) -> str:
    """HTML that shows traces; everything that a model or a tool wrote is escaped."""
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title><style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n"
        + "\n".join(map(article, traces))
        + "\n</html>\n"
    )


def article(trace: Trace) -> str:
    """One trace."""
    parts = [f"<article><h2>{html.escape(trace.question)}</h2>"]
    for turn in trace.turns:
        parts.append(f'<pre class="model">{html.escape(turn.written.strip())}</pre>')
        if turn.observation is not None:
            kind = "tool" if turn.ok else "tool error"
            said = html.escape(turn.observation)
            parts.append(f'<pre class="{kind}">Observation: {said}</pre>')
    why = "the step limit" if trace.ended == "limit" else "the model wrote nothing"
    ended = f"answer: {trace.answer}" if trace.ended == "answer" else f"no answer: {why}"
    parts.append(f'<p class="ended">{len(trace.turns)} steps, {html.escape(ended)}</p></article>')
    return "\n".join(parts)


def newest() -> Path:
    """The traces of the run that finished last. Raises UsageError when there is none."""
    files = list((paths.runs() / "agents").glob("*/*/samples/traces.jsonl"))
    if not files:
        raise UsageError(
            f"no finished run of agents is below {paths.runs()}; train one:\n"
            "    python -m agents.train +size=tiny"
        )
    return folders.newest_first([file.parents[1] for file in files])[0] / "samples/traces.jsonl"


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        options = read_words(Options, words, "traces=latest")
        if options.only not in ("all", "limit") or not options.n.isdigit():
            raise UsageError(f"only={options.only} n={options.n}: type only=limit n=50")
        file = newest() if options.traces == "latest" else paths.typed(options.traces)
        traces = [t for t in read_traces(file) if options.only == "all" or t.ended == "limit"]
        out = paths.typed(options.out) if options.out else file.with_suffix(".html")
        try:
            write_text(out, page(traces[: int(options.n)], file.name))
        except OSError as error:
            raise UsageError(f"out={out} cannot be written: {error.strerror}") from error
        print(f"wrote {out}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
