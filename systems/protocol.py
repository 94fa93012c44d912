"""What clients may ask, in OpenAI's words, and what they are told when they may not.

A field that this server does not know is refused, not ignored: whoever asks for `logprobs` and gets
an answer without them would look for the mistake elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from systems.engine.sampling import Sampling


class Refused(Exception):
    """A request that is not served: HTTP status, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Request(BaseModel):
    """What completions and chats have in common."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    n: Annotated[int, Field(ge=1)] = 1
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    seed: int | None = None
    user: str | None = None
    """Accepted and not used, as by other servers."""

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else (self.stop or [])

    def sampling(self, room: int, end: int | None, number: int, default: int) -> Sampling:
        """The engine's settings for answer `number` of a prompt that leaves `room` tokens.

        Raises Refused when more tokens are asked for than there is room.
        """
        if room < 1:
            raise Refused(400, "the prompt fills the model's context: no room for an answer")
        wanted = self.max_tokens or min(default, room)
        if wanted > room:
            raise Refused(400, f"max_tokens={wanted}, and the prompt leaves room for {room}")
        stops = set(self.stop_token_ids)
        if end is not None and not self.ignore_eos:
            stops.add(end)
        return Sampling(
            temperature=self.temperature, top_k=max(0, self.top_k), top_p=self.top_p,
            max_tokens=wanted, seed=(self.seed or 0) + number, stop_tokens=frozenset(stops),
        )  # fmt: skip


class Completion(Request):
    """POST /v1/completions"""

    prompt: str | list[str] | list[int] | list[list[int]]

    def prompts(self) -> list[str] | list[list[int]]:
        """A list of prompts, whichever of the four forms came."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return self.prompt  # type: ignore[return-value]


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid")
    role: str
    content: str
    name: str | None = None


class Chat(Request):
    """POST /v1/chat/completions"""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


def read(kind: type[Request], body: bytes) -> Request:
    """A request from a body of JSON. Raises Refused (400), naming the field and the limit."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise Refused(400, f"{place}: {first['msg']}") from error


def usage(prompt: int, answer: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer
    }  # fmt: skip


def choice(chat: bool, index: int, text: str, finish: str | None, first: bool = False) -> Any:
    """One entry of `choices` in a piece of a stream."""
    if not chat:
        return {"index": index, "text": text, "finish_reason": finish, "logprobs": None}
    delta: dict[str, str] = {"role": "assistant"} if first else {}
    if text or first:
        delta["content"] = text
    return {"index": index, "delta": delta, "finish_reason": finish}


def whole(chat: bool, index: int, text: str, finish: str) -> Any:
    """One entry of `choices` in an answer that is sent at once."""
    if not chat:
        return {"index": index, "text": text, "finish_reason": finish, "logprobs": None}
    message = {"role": "assistant", "content": text}
    return {"index": index, "message": message, "finish_reason": finish}
