"""Tools: functions with a name, a description and a JSON schema, which an agent may call.

A call never raises. What goes wrong (no such tool, wrong arguments, an exception, no answer in
time) comes back as an observation that begins with `error:`, so that the agent can react.

    Toolbox([...])                  calls in this process: for functions that are bounded anyway
    Toolbox([...], isolated=True)   calls in a process of its own, which is ended when it takes
                                    longer than the time limit; the next call starts a new one

Only tools in the box can be called, whatever a model writes or a web page tells it to write.
"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labkit.text import closest

LONGEST = 600
"""Characters of an observation: a page of a megabyte would leave no room for anything else."""
ERROR = "error:"


@dataclass(frozen=True)
class Tool:
    """A function from named arguments to text."""

    name: str
    description: str
    function: Callable[..., str]
    parameters: Mapping[str, str] = field(default_factory=lambda: {"query": "a text"})
    """Name of each argument, all of them texts, and what it means."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, as the Model Context Protocol and OpenAI's API want it."""
        return {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": text}
                for name, text in self.parameters.items()
            },
            "required": list(self.parameters),
            "additionalProperties": False,
        }

    def misfit(self, arguments: Mapping[str, Any]) -> str:
        """Why these arguments do not fit the schema; empty when they do."""
        for name in self.parameters:
            if name not in arguments:
                return f"{self.name} needs the argument {name!r}"
            if not isinstance(arguments[name], str):
                return f"{self.name}: the argument {name!r} must be a text"
        for name in arguments:
            if name not in self.parameters:
                return f"{self.name} has no argument {name!r}{closest(name, list(self.parameters))}"
        return ""


@dataclass(frozen=True)
class Observation:
    """What a tool said, in one line."""

    text: str
    ok: bool
    seconds: float = 0.0


def one_line(text: str, longest: int = LONGEST) -> str:
    """The text without line breaks, cut to `longest` characters.

    With its line breaks, a page could contain the line `Action: ...`, which would look like the
    agent's own words.
    """
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[: longest - 4].rstrip() + " ..."


class Toolbox:
    """The tools that an agent is allowed to call."""

    def __init__(
        self, tools: Sequence[Tool], timeout: float = 10.0, isolated: bool = False
    ) -> None:
        """Raises ValueError for two tools of one name."""
        self.tools = {tool.name: tool for tool in tools}
        if len(self.tools) != len(tools):
            raise ValueError("two tools have the same name")
        self.timeout = timeout
        self.worker = Worker(self.tools) if isolated else None

    def __enter__(self) -> Toolbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process of the tools, if there is one."""
        if self.worker is not None:
            self.worker.stop()

    def call(self, name: str, arguments: Mapping[str, Any]) -> Observation:
        """Run a tool. Never raises: see the module's docstring."""
        start = time.perf_counter()
        tool = self.tools.get(name)
        if tool is None:
            known = ", ".join(self.tools) or "none"
            text, ok = f"there is no tool {one_line(name, 40)!r}; the tools are: {known}", False
        elif misfit := tool.misfit(arguments):
            text, ok = misfit, False
        elif self.worker is not None:
            text, ok = self.worker.ask(name, dict(arguments), self.timeout)
        else:
            text, ok = answer(tool, arguments)
        said = text if ok else f"{ERROR} {text}"
        return Observation(one_line(said), ok, time.perf_counter() - start)

    def call_text(self, name: str, argument: str) -> Observation:
        """Run a tool with its only argument, as `search[Ada Lovelace]` writes it."""
        tool = self.tools.get(name)
        parameter = next(iter(tool.parameters)) if tool is not None else "query"
        return self.call(name, {parameter: argument})


def answer(tool: Tool, arguments: Mapping[str, Any]) -> tuple[str, bool]:
    """What the function returns, and whether it did without an exception."""
    try:
        return str(tool.function(**arguments)), True
    except Exception as error:  # whatever a tool raises, the agent reads it and goes on
        return str(error) or type(error).__name__, False


class Worker:
    """A process that runs tools, and can be ended while it does."""

    STARTING = 60.0
    """Seconds for a new process to import what the tools need, beside a call's own time."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self.tools = dict(tools)
        self.process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Any = None

    def start(self) -> None:
        """Start the process, and wait until it can take a call."""
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        self.pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self.tools), daemon=True)
        process.start()
        self.process = process
        theirs.close()
        if not self.pipe.poll(self.STARTING):
            self.stop()
            raise TimeoutError("the tools' process did not start")
        self.pipe.recv()

    def ask(self, name: str, arguments: dict[str, Any], timeout: float) -> tuple[str, bool]:
        """The answer of a tool; an error after `timeout` seconds, and the process is ended."""
        try:
            if self.process is None or not self.process.is_alive():
                self.stop()
                self.start()
            self.pipe.send((name, arguments))
            if self.pipe.poll(timeout):
                found: tuple[str, bool] = self.pipe.recv()
                return found
        except (EOFError, OSError) as error:
            self.stop()
            return f"the tool's process died ({type(error).__name__})", False
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            return f"{name} cannot be sent to a process of its own: {error}", False
        self.stop()
        return f"{name} gave no answer within {timeout:g} s and was stopped", False

    def stop(self) -> None:
        """End the process at once, also in the middle of a call."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


def serve(pipe: Any, tools: Mapping[str, Tool]) -> None:
    """The worker's side: take calls until the other side is gone."""
    pipe.send("ready")
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(answer(tools[name], arguments))
