"""The model behind week 20's server, in this process, and a client that is an agent's policy.

    with Server(folder, port=0) as server:              # a free port of 127.0.0.1
        Served(server.url).write(["Question: ..."])

The server takes its template from `template.render`, as the training does: `Templated` stands in
for the tokenizer's own text in Jinja, which is kept beside it for other servers and must agree.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from agents import OpenAIChat
from capstone import chats, template
from labkit import RunFailed, UsageError
from systems import (
    Api,
    Engine,
    EngineSettings,
    Refused,
    ServerSettings,
    Worker,
    listen,
    open_folder,
)

HOST = "127.0.0.1"
NAME = "capstone"
CLIENTS = 16
"""Questions on their way at once."""
STARTS = 30.0
"""Seconds until a server must answer."""
TIMEOUT = 120.0
REFUSED = "the server answered 400"
"""How week 18's client says that a chat does not fit into the context."""


class Templated:
    """A tokenizer whose chats are written by `template.render`; otherwise the tokenizer itself."""

    chat_template = "capstone.template.render"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def encode(self, text: str, **words: Any) -> list[int]:
        """Tokens of a text, without a warning when it is too long: the server refuses it."""
        return list(self.tokenizer.encode(text, verbose=False, **words))

    def apply_chat_template(self, messages: Sequence[template.Message], **_: Any) -> str:
        """The text of a chat. Raises Refused (400) for one that cannot be written."""
        try:
            return template.render(messages, self.tokenizer.eos_token)
        except ValueError as error:
            raise Refused(400, str(error)) from error


def prompt_tokens(tokenizer: Any, messages: Sequence[template.Message]) -> list[int]:
    """What the server really gives to the model for a chat: text, then tokens, as in week 20."""
    written = Templated(tokenizer)
    return written.encode(written.apply_chat_template(messages), add_special_tokens=False)


def check_port(port: int) -> None:
    """Raises UsageError when the port is in use now: better before the training than after it."""
    try:
        listen(HOST, port).close()
    except UsageError as error:
        raise UsageError(
            f"serve.{error}, or serve.port=0 for any free one.\n"
            "A run that is resumed keeps its port: end the other program first."
        ) from error


class Server:
    """Week 20's engine and server in a thread, until the `with` block ends."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Raises UsageError when the port is in use, or the folder holds no such model."""
        import uvicorn

        self.socket = listen(HOST, port)
        try:
            model, tokenizer = open_folder(folder)
        except BaseException:
            self.socket.close()
            raise
        blocks = 16 * max(4, model.shape.context // 16)
        self.worker = Worker(Engine(model, EngineSettings(blocks=blocks)))
        app = Api(self.worker, Templated(tokenizer), NAME, ServerSettings()).app()
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        self.server = uvicorn.Server(config)
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True, name="server"
        )

    def __enter__(self) -> Server:
        self.worker.start()
        self.thread.start()
        end = time.monotonic() + STARTS
        while not self.server.started:
            if time.monotonic() > end or not self.thread.is_alive():
                self.__exit__()
                raise RunFailed(f"the server did not start within {STARTS:.0f} s at {self.url}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)
        self.worker.close()
        self.socket.close()


class Served:
    """A policy of week 18 (`agents.solve`) that asks a server, in the template's chats."""

    def __init__(self, url: str, longest: int) -> None:
        """`longest`: tokens of an answer."""
        self.client = OpenAIChat(f"{url}/v1", NAME, timeout=TIMEOUT, longest=longest)

    def write(self, transcripts: Sequence[str]) -> list[str]:
        """The next step of each transcript."""
        return self.answer([chats.chat_of(transcript) for transcript in transcripts])

    def answer(self, asked: Sequence[Sequence[template.Message]]) -> list[str]:
        """The next message of each chat; empty where the chat fills the context."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(self._one, asked))

    def _one(self, messages: Sequence[template.Message]) -> str:
        try:
            return self.client.chat([dict(message) for message in messages])
        except UsageError as error:
            if REFUSED in str(error):
                return ""
            raise


def load(url: str, requests: int, rate: float, out: Path) -> dict[str, float]:
    """Week 20's load from outside, in a process of its own: its numbers, also written to `out`.

    Raises RunFailed when a request failed.
    """
    words = [f"url={url}", f"requests={requests}", f"rate={rate}", f"out={out}", "max_tokens=32"]
    done = subprocess.run(
        [sys.executable, "-m", "systems.load", *words], capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RunFailed(f"the load failed (exit {done.returncode}): {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}
