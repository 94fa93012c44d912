"""The loop of an agent: a thought, an action, what the tool said, and again.

    Question: What is 47 times 85 plus 12?
    Thought: This is a calculation.           the model
    Action: calculate[47*85+12]               the model
    Observation: 4007                         the tool, and nobody else
    Thought: That is the answer.              the model
    Action: finish[4007]                      the model; the loop ends

Yao et al. 2022, section 2 and figure 1. Three things are easily forgotten: the model must be
stopped before it writes the observation itself (`until_observation`); the loop must end when the
model does not (`limit`); and what a tool says is one line, which can be no action (tools.one_line).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agents.tokens import OBSERVATION, QUESTION
from agents.tools import Toolbox, one_line
from labkit import UsageError, exercise
from labkit.files import write_text

FINISH = "finish"
MALFORMED = "error: no action was found; write one line such as Action: search[Ada Lovelace]"


class Action(NamedTuple):
    """A call as the model wrote it."""

    tool: str
    argument: str


class Policy(Protocol):
    """A model that goes on with transcripts."""

    def write(self, transcripts: Sequence[str]) -> list[str]:
        """What comes next in each transcript: a thought and an action, and maybe too much."""
        ...


@exercise(minutes=10)
def until_observation(written: str) -> str:
    """The model's text up to the observation that only a tool may give.

    Everything before the first line that begins with `Observation:`, also when that is the first
    line of all; the whole text when there is none. Spaces and line breaks at the end are removed,
    those at the beginning stay. The word `Observation:` inside a line is a word like any other.
    """
    kept = []
    for line in written.split("\n"):
        if line.startswith("Observation:"):
            break
        kept.append(line)
    return "\n".join(kept).rstrip()


@exercise(minutes=15)
def parse_action(written: str) -> Action | None:
    """The call in what a model wrote; None when it is not well-formed.

    The first line that begins with `Action:` counts, and no other. After `Action:` and any spaces
    it must be a tool's name, which consists of letters, digits and `_` and is not empty, directly
    followed by `[`, the argument, and `]` as the last character of the line, except for spaces
    behind it. The argument is everything between the first `[` and the last `]`, so it may hold
    brackets itself; spaces around it are removed, and it may be empty.
    """
    for line in written.split("\n"):
        if not line.startswith("Action:"):
            continue
        call = line.removeprefix("Action:").strip()
        tool, _, argument = call.partition("[")
        named = tool.replace("_", "a").isalnum() and tool.isascii()
        if not named or not argument.endswith("]"):
            return None
        return Action(tool, argument[:-1].strip())
    return None


@dataclass
class Turn:
    """One step of a trace; `observation` is None after `finish`."""

    written: str
    tool: str | None
    argument: str | None
    observation: str | None
    ok: bool = True
    seconds: float = 0.0

    def __str__(self) -> str:
        said = "" if self.observation is None else f"{OBSERVATION}{self.observation}"
        return f"\n{self.written.lstrip()}{said}"


@dataclass
class Trace:
    """Everything that happened for one question."""

    question: str
    turns: list[Turn] = field(default_factory=list)
    answer: str | None = None
    ended: str = "running"
    """answer; limit: the model did not finish in time; silence: it wrote nothing, as when its
    context is full."""

    @property
    def transcript(self) -> str:
        """What the model has seen so far."""
        return f"{QUESTION}{one_line(self.question)}{''.join(map(str, self.turns))}"

    @property
    def well_formed(self) -> int:
        """Turns with a call that could be read, of one of the tools or `finish`."""
        return sum(turn.tool is not None for turn in self.turns)

    @property
    def invented(self) -> int:
        """Observations that the model wrote itself."""
        return sum("\nObservation:" in f"\n{turn.written}" for turn in self.turns)


def solve(
    policy: Policy,
    toolbox: Toolbox,
    questions: Sequence[str],
    limit: int,
    memory: Any = None,
) -> list[Trace]:
    """Answer questions, all at once: every trace that has not ended gets one step a round.

    Args:
        limit: steps of a trace at most.
        memory: what of a trace the model is shown, a function of the Trace (see memory.py); the
            whole transcript when None.
    Raises:
        UsageError when `limit` is below 1.
    """
    if limit < 1:
        raise UsageError(f"limit={limit}: an agent needs at least one step; try limit=8")
    traces = [Trace(question) for question in questions]
    for _ in range(limit):
        running = [trace for trace in traces if trace.ended == "running"]
        if not running:
            break
        shown = [trace.transcript if memory is None else memory(trace) for trace in running]
        for trace, written in zip(running, policy.write(shown), strict=True):
            if written.strip():
                act(trace, until_observation(written), toolbox)
            else:
                trace.ended = "silence"
    for trace in traces:
        if trace.ended == "running":
            trace.ended = "limit"
    return traces


def act(trace: Trace, written: str, toolbox: Toolbox) -> None:
    """Carry out what the model wrote, and add it to the trace."""
    action = parse_action(written)
    if action is None:
        trace.turns.append(Turn(written, None, None, MALFORMED, ok=False))
    elif action.tool == FINISH:
        trace.turns.append(Turn(written, FINISH, action.argument, None))
        trace.answer, trace.ended = action.argument, "answer"
    else:
        said = toolbox.call_text(*action)
        known = action.tool if action.tool in toolbox.tools else None
        trace.turns.append(Turn(written, known, action.argument, said.text, said.ok, said.seconds))


def write_traces(path: Path, traces: Iterable[Trace]) -> None:
    """One trace a line, as JSON."""
    write_text(path, "".join(json.dumps(asdict(t), ensure_ascii=False) + "\n" for t in traces))


def read_traces(path: Path) -> list[Trace]:
    """What `write_traces` wrote. Raises UsageError for another file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [trace_of(json.loads(line)) for line in lines if line.strip()]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} holds no traces ({type(error).__name__}: {error}); give a traces.jsonl that a "
            "run of agents wrote"
        ) from error


def trace_of(row: Mapping[str, Any]) -> Trace:
    turns = [Turn(**turn) for turn in row["turns"]]
    return Trace(row["question"], turns, row["answer"], row["ended"])
