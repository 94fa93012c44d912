"""A model behind the OpenAI chat API: week 20's server, vLLM, or a hosted one.

    POST <url>/chat/completions   {"model": ..., "messages": [...], "stop": ["\\nObservation:"]}

Only the standard library is used. What a server does wrong (no connection, a page of HTML, status
500, an answer cut short) becomes one clear UsageError after a few tries.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from agents.recovery import Failed, delays, retry
from labkit import UsageError
from labkit.text import short

LARGEST = 4_000_000
"""Bytes of an answer that are read."""
INSTRUCTIONS = """\
Answer the question step by step. In each step write one line that begins with "Thought:" and one \
line that begins with "Action:". An action is one of

{tools}
finish[answer]    the final answer, as short as possible

Then stop. The line "Observation:" is written by the tool, never by you."""
EXAMPLE = """\
Question: What is 12 times 4?
Thought: This is a calculation.
Action: calculate[12*4]
Observation: 48
Thought: That is the answer.
Action: finish[48]"""


def fetch(request: urllib.request.Request, timeout: float) -> bytes:
    """The body of an answer with status 200. Raises Failed; `again` where another try may help."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            body: bytes = response.read(LARGEST + 1)
            if response.length and len(body) <= LARGEST:  # urllib does not say so by itself
                raise http.client.IncompleteRead(body, response.length)
    except urllib.error.HTTPError as error:
        with error:
            said = short(error.read(2000).decode(errors="replace"), 200)
        again = error.code in (408, 425, 429) or error.code >= 500
        raise Failed(f"the server answered {error.code}: {said}", again) from error
    except TimeoutError as error:
        raise Failed(f"no answer within {timeout:g} s", True) from error
    except urllib.error.URLError as error:
        raise Failed(f"no connection: {error.reason}", True) from error
    except (http.client.HTTPException, OSError) as error:
        raise Failed(f"the connection broke: {type(error).__name__}", True) from error
    except ValueError as error:  # such as an address without http://
        raise Failed(f"not an address: {error}", False) from error
    if len(body) > LARGEST:
        raise Failed(f"the answer is longer than {LARGEST:,} bytes", False)
    return body


class OpenAIChat:
    """A policy that asks a server."""

    def __init__(
        self,
        url: str,
        model: str = "default",
        tools: Sequence[tuple[str, str]] = (),
        key: str = "",
        timeout: float = 60.0,
        attempts: int = 3,
        longest: int = 256,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Args:
            url: up to `/v1`, such as http://127.0.0.1:8000/v1.
            tools: name and description of each, for the instructions.
            key: sent as a bearer token; never written anywhere.
            longest: tokens of an answer.
        Raises:
            UsageError for something that is not an address.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"url={url} is no address; type url=http://127.0.0.1:8000/v1")
        self.url, self.model, self.key = url.rstrip("/"), model, key
        self.timeout, self.attempts, self.longest, self.sleep = timeout, attempts, longest, sleep
        listed = "\n".join(f"{name}[...]    {text}" for name, text in tools)
        self.system = f"{INSTRUCTIONS.format(tools=listed)}\n\nAn example:\n\n{EXAMPLE}"

    def write(self, transcripts: Sequence[str]) -> list[str]:
        """The next step of each transcript. Raises UsageError as `chat` does."""
        return [
            self.chat(
                [{"role": "system", "content": self.system}, {"role": "user", "content": text}],
                ["\nObservation:"],
            )
            for text in transcripts
        ]

    def chat(self, messages: list[dict[str, str]], stop: Sequence[str] = ()) -> str:
        """One answer to a conversation, at temperature 0.

        Raises UsageError when the server cannot be reached or says nothing that can be used.
        """
        asked: dict[str, Any] = {
            "model": self.model, "messages": messages, "temperature": 0,
            "max_tokens": self.longest,
        }  # fmt: skip
        if stop:
            asked["stop"] = list(stop)
        body = json.dumps(asked).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "hands-on-ai-lab"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"

        def once() -> str:
            request = urllib.request.Request(f"{self.url}/chat/completions", body, headers)
            return content_of(fetch(request, self.timeout))

        try:
            return retry(once, self.attempts, delays(self.attempts), self.sleep)
        except Failed as error:
            raise UsageError(
                f"url={self.url}: {error}; is a server with OpenAI's chat API there? Try\n"
                f"    curl {self.url}/models"
            ) from error


def content_of(body: bytes) -> str:
    """The message in an answer. Raises Failed for anything that is not a chat completion."""
    try:
        said = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        shown = short(body[:300].decode(errors="replace"), 120)
        raise Failed(f"the answer is no chat completion: {shown}", False) from error
    if said is None:
        return ""
    if not isinstance(said, str):
        raise Failed("the message's content is no text", False)
    return said
