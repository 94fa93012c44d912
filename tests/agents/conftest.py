"""A server on this machine that plays recorded answers, and misbehaves when told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Reply = Callable[[str, bytes], tuple[int, bytes] | None]
"""Takes the path and the body to a status and an answer; None cuts the connection."""


class Played:
    """The server's address, and what it was asked."""

    def __init__(self) -> None:
        self.url, self.reply = "", lambda path, body: (404, b"")
        self.asked: list[tuple[str, bytes, dict[str, str]]] = []


@pytest.fixture
def played() -> Iterator[Played]:
    state = Played()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append((self.path, body, dict(self.headers)))
            reply = state.reply(self.path, body)
            if reply is None:  # a promise of more bytes than come
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"{")
                self.close_connection = True
                return
            self.send_response(reply[0])
            self.send_header("Content-Length", str(len(reply[1])))
            self.end_headers()
            self.wfile.write(reply[1])

        do_GET = do_POST = answer

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def completion(text: Any) -> tuple[int, bytes]:
    """An answer as a chat server gives it."""
    return 200, json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": text}}]}
    ).encode()
