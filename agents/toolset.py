"""The tools of the small agent: the calculator, and a search in the pages of an encyclopedia."""

from __future__ import annotations

from typing import Any

from agents.calculator import calculate
from agents.tools import Tool, Toolbox
from agents.wiki import OfflineWiki, tools_of

TOOLS = ("calculate", "search")
"""Their names, which the agent is trained to call."""


def toolbox(pages: dict[str, str], change: Any = None) -> Toolbox:
    """The calculator and a search in these pages; `change` is applied to each tool."""
    wiki = OfflineWiki(pages)
    search = tools_of(wiki, lookups=False)
    found = [Tool("calculate", "do arithmetic", calculate, {"expression": "such as 2*(3+4)"})]
    return Toolbox([change(tool) if change else tool for tool in (*found, *search)])
