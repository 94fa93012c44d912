"""The tools over the Model Context Protocol, with the package's own client."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anyio
import pytest

from agents import serve_tools
from agents.tools import Tool, Toolbox

mcp = pytest.importorskip("mcp")


def test_a_client_lists_and_calls_the_tools() -> None:
    box = Toolbox([serve_tools.all_tools("pydoc")[0], Tool("echo", "says it", lambda query: query)])

    async def session() -> dict[str, Any]:
        async with mcp.Client(serve_tools.make_server(box)) as client:
            listed = (await client.list_tools()).tools
            return {
                "tools": {tool.name: tool for tool in listed},
                "good": await client.call_tool("calculate", {"expression": "47*85+12"}),
                "bad": await client.call_tool("calculate", {"expression": "1/0"}),
                "wrong": await client.call_tool("calculate", {"formula": "1"}),
                "none": await client.call_tool("delete", {"query": "x"}),
            }

    found = anyio.run(session)
    assert set(found["tools"]) == {"calculate", "echo"}
    schema = found["tools"]["calculate"].input_schema
    assert schema["required"] == ["expression"]
    assert (found["good"].content[0].text, found["good"].is_error) == ("4007", False)
    assert (found["bad"].content[0].text, found["bad"].is_error) == (
        "error: division by zero",
        True,
    )
    assert found["wrong"].is_error
    assert found["none"].is_error


def test_it_speaks_over_stdin_and_stdout() -> None:
    async def session() -> str:
        command = mcp.StdioServerParameters(
            command=sys.executable, args=["-m", "agents.serve_tools", "wiki=pydoc"]
        )
        async with mcp.Client(command) as client:
            said = await client.call_tool("search", {"query": "lambda expressions"})
            return said.content[0].text

    with anyio.from_thread.start_blocking_portal() as portal:
        text = portal.start_task_soon(session).result(timeout=60)
    assert "lambda" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wiki=nowhere"], "wiki=nowhere is not known"),
        (["timeout=0"], "timeout=0: a number from 0.001 to 3600 is needed"),
        (["port=99999"], "port=99999: a whole number from 1 to 65535 is needed"),
        (["port=x"], "port=x: a whole number"),
        (["tools=all"], "unknown setting 'tools'"),
    ],
)
def test_bad_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve_tools.main(words) == 2
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert serve_tools.main([f"port={port}", "wiki=pydoc"]) == 2
    assert f"port={port}: " in capsys.readouterr().err


def test_without_the_package_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['mcp'] = None; sys.modules['mcp_types'] = None\n"
        "from agents import serve_tools; sys.exit(serve_tools.main(['wiki=pydoc']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install -e '.[agents]'" in done.stderr
