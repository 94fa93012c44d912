"""The web server: OpenAI's completions and chats, models, health.

    POST /v1/completions  POST /v1/chat/completions  GET /v1/models  GET /health

Streams are server-sent events. A client that hangs up frees its blocks; a request that takes too
long is ended; more than the server can hold is refused with 429.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Incoming
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from labkit.machine.memory import process_memory_mb
from systems import protocol
from systems.engine.sampling import Sampling
from systems.protocol import Chat, Completion, Refused, Request
from systems.settings import ServerSettings
from systems.text import TextStream
from systems.worker import Piece, Ticket, Worker

FAILED = "the engine has failed; see the server's output"
GONE = 499
"""Status of a request whose client has hung up; nobody reads it."""


class Answers:
    """The answers to one HTTP request, from handing them in until `close`, which must be called
    however it ends: it cancels what has not finished."""

    def __init__(
        self, api: Api, requests: Sequence[tuple[list[int], Sampling, TextStream]]
    ) -> None:
        self.api, self.loop = api, asyncio.get_running_loop()
        self.inbox: asyncio.Queue[tuple[int, Piece | None]] = asyncio.Queue()
        self.count, self.tokens = len(requests), 0
        self.unfinished: dict[int, Ticket] = {}
        self.alarm = self.loop.call_later(
            api.settings.timeout, self.inbox.put_nowait, (0, None)
        )  # fmt: skip
        api.open += self.count
        for index, (prompt, sampling, stream) in enumerate(requests):
            ticket = Ticket(prompt, sampling, stream, partial(self._deliver, index))
            self.unfinished[index] = ticket
            api.worker.submit(ticket)

    def _deliver(self, index: int, piece: Piece) -> None:
        """Called in the engine's thread."""
        with suppress(RuntimeError):  # the server is closing, and its loop is gone
            self.loop.call_soon_threadsafe(self.inbox.put_nowait, (index, piece))

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """What the engine gives, as it comes. Raises TimeoutError when it takes too long."""
        while self.unfinished:
            index, piece = await self.inbox.get()
            if piece is None:
                raise TimeoutError
            self.tokens += piece.tokens
            if piece.finish:
                del self.unfinished[index]
                self.api.open -= 1
            yield index, piece

    def close(self) -> None:
        """Cancel what has not finished, and free its place; can be called twice."""
        self.alarm.cancel()
        self.api.open -= len(self.unfinished)
        for ticket in self.unfinished.values():
            self.api.worker.cancel(ticket)
        self.unfinished.clear()


class EventStream(StreamingResponse):
    """Server-sent events. A client that hangs up closes its answers."""

    def __init__(self, answers: Answers, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self.answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except ClientDisconnect:
            pass
        finally:
            self.answers.close()


class Api:
    """Routes, and the requests on their way."""

    def __init__(self, worker: Worker, tokenizer: Any, name: str, settings: ServerSettings) -> None:
        self.worker, self.tokenizer, self.name, self.settings = worker, tokenizer, name, settings
        self.open = 0
        self.begun = time.time()

    def app(self) -> Starlette:
        handlers = {Refused: refusal, ClientDisconnect: hung_up}
        routes = [
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
        ]
        return Starlette(routes=routes, exception_handlers=handlers)

    async def models(self, request: Incoming) -> Response:
        model = {"id": self.name, "object": "model", "created": int(self.begun), "owned_by": "lab"}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, request: Incoming) -> Response:
        """200 while the engine works, else 503; with what it does and how much memory it has."""
        engine, counts = self.worker.engine, self.worker.counts
        facts = {
            "status": "ok" if self.worker.failure is None else self.worker.failure,
            "running": len(engine.scheduler.running), "waiting": len(engine.scheduler.waiting),
            "free_blocks": len(engine.pool.free), "blocks": engine.pool.count,
            "preemptions": engine.scheduler.preemptions, "memory_mb": process_memory_mb("VmRSS"),
            "open": self.open, "seconds": time.time() - self.begun, **vars(counts),
        }  # fmt: skip
        return JSONResponse(facts, 200 if self.worker.failure is None else 503)

    async def completions(self, incoming: Incoming) -> Response:
        asked = protocol.read(Completion, await self._body(incoming))
        assert isinstance(asked, Completion)
        prompts = asked.prompts()
        rows = [self._encode(p) if isinstance(p, str) else p for p in prompts]
        return await self._answer(incoming, asked, rows, chat=False)

    async def chat(self, incoming: Incoming) -> Response:
        asked = protocol.read(Chat, await self._body(incoming))
        assert isinstance(asked, Chat)
        asked.max_tokens = asked.max_tokens or asked.max_completion_tokens
        if self.tokenizer.chat_template is None:
            raise Refused(400, "this model's tokenizer has no chat template; use /v1/completions")
        turns = [{"role": m.role, "content": m.content} for m in asked.messages]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return await self._answer(incoming, asked, [self._encode(text)], chat=True)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    async def _body(self, incoming: Incoming) -> bytes:
        """The request's body. Raises Refused (413) above the limit, without reading the rest."""
        limit, body = self.settings.max_body, b""
        async for part in incoming.stream():
            body += part
            if len(body) > limit:
                raise Refused(413, f"the request is larger than max_body={limit} bytes")
        return body

    async def _answer(
        self, incoming: Incoming, asked: Request, rows: list[list[int]], chat: bool
    ) -> Response:
        """Check everything, then start all answers. Raises Refused."""
        if asked.model not in (None, self.name):
            raise Refused(404, f"model {asked.model!r} is not served here; it is {self.name!r}")
        count = len(rows) * asked.n
        if count < 1:
            raise Refused(400, "prompt: at least one is needed")
        if self.open + count > self.settings.max_open:
            raise Refused(429, f"max_open={self.settings.max_open} answers are on their way")
        engine, end = self.worker.engine, self.tokenizer.eos_token_id
        requests = []
        for index in range(count):
            row = rows[index // asked.n]
            room = engine.room - len(row)
            sampling = asked.sampling(room, end, index % asked.n, self.settings.max_tokens)
            try:
                engine.check(row, sampling)
            except ValueError as error:
                raise Refused(400, str(error)) from error
            requests.append((row, sampling, TextStream(self.tokenizer, asked.stops)))
        if self.worker.failure is not None:
            raise Refused(503, FAILED)
        prompt = sum(len(row) for row in rows)
        answers = Answers(self, requests)
        if asked.stream:
            return EventStream(answers, self._events(answers, asked, chat, prompt))
        return await self._whole(incoming, answers, chat, prompt)

    def _head(self, chat: bool, chunk: bool) -> dict[str, Any]:
        kind = "chat.completion" if chat else "text_completion"
        name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        kind += ".chunk" if chat and chunk else ""
        return {"id": name, "object": kind, "created": int(time.time()), "model": self.name}

    async def _events(
        self, answers: Answers, asked: Request, chat: bool, prompt: int
    ) -> AsyncIterator[str]:
        """One event for each step of an answer, usage if asked for, then [DONE]."""
        head, seen = self._head(chat, chunk=True), set[int]()
        try:
            async for index, piece in answers.pieces():
                if piece.finish == "error":
                    yield event(problem(503, FAILED))
                    return
                if not piece.text and not piece.finish:
                    continue  # nothing to show yet, such as half a character
                entry = protocol.choice(chat, index, piece.text, piece.finish, index not in seen)
                seen.add(index)
                yield event(head | {"choices": [entry]})
            if (asked.stream_options or {}).get("include_usage"):
                usage = protocol.usage(prompt, answers.tokens)
                yield event(head | {"choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
        except TimeoutError:
            yield event(problem(504, self._late()))

    async def _whole(
        self, incoming: Incoming, answers: Answers, chat: bool, prompt: int
    ) -> Response:
        """All answers at once, when the last one has ended; nothing if the client has hung up."""
        texts, finish = [""] * answers.count, [""] * answers.count

        async def collect() -> None:
            async for index, piece in answers.pieces():
                texts[index] += piece.text
                finish[index] = piece.finish or ""

        work, left = asyncio.create_task(collect()), asyncio.create_task(gone(incoming))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return Response(status_code=GONE)
            work.result()
        except TimeoutError:
            raise Refused(504, self._late()) from None
        finally:
            answers.close()
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)
        if "error" in finish:
            raise Refused(503, FAILED)
        choices = [protocol.whole(chat, i, texts[i], finish[i]) for i in range(answers.count)]
        body = {"choices": choices, "usage": protocol.usage(prompt, answers.tokens)}
        return JSONResponse(self._head(chat, chunk=False) | body)

    def _late(self) -> str:
        return f"the answer took longer than timeout={self.settings.timeout:g} seconds"


async def gone(incoming: Incoming) -> None:
    """Returns when the client has hung up."""
    while (await incoming.receive())["type"] != "http.disconnect":
        pass


def event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


def problem(status: int, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


async def refusal(request: Incoming, error: Exception) -> Response:
    """What a refused client reads."""
    status = error.status if isinstance(error, Refused) else 500
    return JSONResponse(problem(status, str(error)), status)


async def hung_up(request: Incoming, error: Exception) -> Response:
    """A client that left before its request was read."""
    return Response(status_code=GONE)
