"""Ask an agent: the small one trained here, or any model behind OpenAI's chat API.

python -m agents.ask "What is 47 times 85 plus 12?"
python -m agents.ask "Who built the Eiffel Tower?" url=http://127.0.0.1:8000/v1 wiki=mediawiki
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import UsageError, paths
from labkit.config.words import read_words

USAGE = """\
Ask an agent with a calculator and a wiki.

usage: python -m agents.ask "QUESTION" [run=latest | url=...] [key=value ...]
       python -m agents.ask questions=FILE url=... n=200

  run=latest       the small agent of the run that finished last, or of a run folder
  url=             a server with OpenAI's chat API instead, such as http://127.0.0.1:8000/v1
  model=default    name of the model there
  key=             name of the environment variable that holds the server's key
  wiki=            atlas (what the small agent was trained for), squad, pydoc, mediawiki
  limit=8          steps at most
  timeout=10       seconds that a tool may take
  questions=       JSON with question and answer in each row (HotpotQA's file): exact match and F1
  n=200            rows of it at most
  traces=          file to which the traces are written, one a line
"""


OTHERWISE = (
    "train one, or name a server:\n"
    "    python -m agents.train +size=tiny\n"
    '    python -m agents.ask "..." url=http://127.0.0.1:8000/v1'
)
"""What to type when there is no run."""
ENDED = {
    "limit": "no answer: the steps ran out; try a larger limit=",
    "silence": "no answer: the model wrote nothing more, as when its context is full",
}
"""What is shown in place of an answer."""


@dataclass
class Options:
    """The settings of the command, as text."""

    run: str = "latest"
    url: str = ""
    model: str = "default"
    key: str = ""
    wiki: str = ""
    limit: str = "8"
    timeout: str = "10"
    questions: str = ""
    n: str = "200"
    traces: str = ""


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    keys = Options.__dataclass_fields__
    asked = [word for word in words if word.partition("=")[0] not in keys]
    try:
        options = read_words(Options, [w for w in words if w not in asked], "run=latest")
        print(ask(asked, options))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def ask(asked: list[str], options: Options) -> str:
    """The trace of a question, or the scores of many. Raises UsageError."""
    from agents.investigate import whole

    limit, n = whole("limit", options.limit, 1000), whole("n", options.n, 1_000_000)
    timeout = whole("timeout", options.timeout, 3600)
    if bool(options.questions) == bool(asked) or len(asked) > 1:
        raise UsageError(
            'give one question, in quotation marks:\n    python -m agents.ask "What is 12 times 4?"'
        )
    rows = read_questions(paths.typed(options.questions), n) if options.questions else []
    from labkit.run import folders

    folder = None if options.url else folders.with_model(options.run, "agents", OTHERWISE)

    from agents.react import solve, write_traces
    from agents.score import exact_match, f1
    from agents.tools import Toolbox

    tools = chosen_tools(options.wiki or ("auto" if options.url else "atlas"))
    policy = chosen_policy(options, folder, tools)
    with Toolbox(tools, float(timeout), isolated=True) as box:
        traces = solve(policy, box, asked or [question for question, _ in rows], limit)
    if options.traces:
        write_traces(paths.typed(options.traces), traces)
    if asked:
        if traces[0].ended == "silence" and not traces[0].turns:
            raise UsageError(
                f"the model wrote nothing: a question of {len(asked[0]):,} characters and a step "
                "of its answer do not fit into its context; ask in fewer words"
            )
        ended = traces[0].answer
        return f"{traces[0].transcript}\n\n{ENDED[traces[0].ended] if ended is None else ended}"
    pairs = [(trace.answer, answer) for trace, (_, answer) in zip(traces, rows, strict=True)]
    em = 100 * sum(exact_match(*pair) for pair in pairs) / len(pairs)
    overlap = 100 * sum(f1(*pair) for pair in pairs) / len(pairs)
    steps = sum(len(trace.turns) for trace in traces) / len(traces)
    return f"{len(pairs)} questions: exact match {em:.1f} %, F1 {overlap:.1f} %, {steps:.1f} steps"


def chosen_tools(wiki: str) -> list[Any]:
    """The tools of a wiki's name; `atlas` is the encyclopedia of the small agent's exam."""
    from agents.serve_tools import all_tools

    if wiki != "atlas":
        return all_tools(wiki)
    from agents.atlas import make_atlas, pages_of
    from agents.toolset import toolbox

    return list(toolbox(pages_of(make_atlas(100, "test", 200))).tools.values())


def chosen_policy(options: Options, folder: Path | None, tools: list[Any]) -> Any:
    """The model that writes."""
    if folder is None:
        from agents.backends import OpenAIChat

        key = os.environ.get(options.key, "") if options.key else ""
        listed = [(tool.name, tool.description) for tool in tools]
        return OpenAIChat(options.url, options.model, listed, key)
    from agents.policy import open_policy

    known = [tool.name for tool in tools]
    return open_policy(folder / "model", [name for name in known if name != "lookup"], 64, True)


def read_questions(file: Path, n: int) -> list[tuple[str, str]]:
    """Rows of `question` and `answer`, as a JSON list or one a line. Raises UsageError."""
    try:
        text = file.read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip().startswith("[") else [
            json.loads(line) for line in text.splitlines() if line.strip()
        ]  # fmt: skip
        found = [(str(row["question"]), str(row["answer"])) for row in rows[:n]]
    except OSError as error:
        raise UsageError(f"questions={file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"questions={file}: rows with question and answer are needed ({error!r})"
        ) from error
    if not found:
        raise UsageError(f"questions={file} has no rows")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
