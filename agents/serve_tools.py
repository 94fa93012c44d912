"""The week's tools over the Model Context Protocol, for any other agent: stdio or HTTP.

    python -m agents.serve_tools                    over stdin and stdout, as most clients start it
    python -m agents.serve_tools port=8765          over HTTP, on this machine only

In a client's settings: {"command": "python", "args": ["-m", "agents.serve_tools", "wiki=squad"]}.
modelcontextprotocol.io, revision 2025-11-25: a tool's own failure is a result with `isError`, so
that the model reads it; nothing is written to stdout but the protocol.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from agents.tools import Tool, Toolbox
from labkit import UsageError
from labkit.config.words import read_words, real_number, whole_number

USAGE = """\
Serve the calculator and a wiki over the Model Context Protocol.

usage: python -m agents.serve_tools [wiki=auto] [timeout=10] [port=]

  wiki=auto       squad, pydoc (offline), mediawiki (Wikipedia), or auto: squad where it is
  timeout=10      seconds that a call may take
  port=           serve HTTP on 127.0.0.1 at this port; stdin and stdout if left out
"""


@dataclass
class Options:
    """The settings of the command, as text."""

    wiki: str = "auto"
    timeout: str = "10"
    port: str = ""


def all_tools(wiki: str) -> list[Tool]:
    """The calculator, search and lookup. Raises UsageError for an unknown wiki."""
    from agents.calculator import calculate
    from agents.wiki import MediaWiki, offline_wiki, tools_of
    from labkit import paths

    chosen: Any
    if wiki == "mediawiki":
        chosen = MediaWiki(cache=paths.ROOT / ".cache" / "mediawiki")
    else:
        chosen = offline_wiki(wiki)
    words = {"expression": "numbers, + - * / ** % and parentheses, such as 2*(3+4)"}
    return [Tool("calculate", "do exact arithmetic", calculate, words), *tools_of(chosen)]


def make_server(box: Toolbox) -> Any:
    """An MCP server with these tools; a tool's failure is a result that says so.

    Raises UsageError when the package `mcp` is not installed.
    """
    try:
        import anyio.to_thread
        import mcp_types as types
        from mcp.server import Server
    except ImportError as error:
        raise UsageError(
            f"the package mcp is not installed ({error}); type pip install -e '.[agents]'"
        ) from error

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.name, description=tool.description, input_schema=dict(tool.schema)
                )
                for tool in box.tools.values()
            ]
        )

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        # In a thread: a slow wiki must not keep the server from answering others.
        said = await anyio.to_thread.run_sync(box.call, params.name, params.arguments or {})
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=said.text)], is_error=not said.ok
        )

    return Server(
        "hands-on-ai-lab", version="0.1", on_list_tools=list_tools, on_call_tool=call_tool
    )


async def over_stdio(server: Any) -> None:
    """Serve one client until it closes its side."""
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        options = read_words(Options, words, "wiki=squad")
        timeout = real_number("timeout", options.timeout, 0.001, 3600)
        port = whole_number("port", options.port, 1, 65535) if options.port else None
        run(make_server(Toolbox(all_tools(options.wiki), timeout)), port)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run(server: Any, port: int | None) -> None:
    """Serve until the client is gone, or Ctrl-C. Raises UsageError for a port in use."""
    import anyio

    if port is None:
        anyio.run(over_stdio, server)
        return
    import socket

    import uvicorn

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise UsageError(f"port={port}: {error.strerror}; type another port") from error
    print(f"serving http://127.0.0.1:{port}/mcp", file=sys.stderr)
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
