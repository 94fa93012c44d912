"""Makes notebooks/start.ipynb from notebooks/start.py, so that it is reviewed and tested as code.

python -m labkit.notebook            write it
python -m labkit.notebook --check    exit 1 when it is out of date

In the source `# %%` begins a cell of code and `# %% [markdown]` one of text. `@repository@` stands
for the address of the clone, from [project.urls] in pyproject.toml.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit import files, paths
from labkit.show.console import fail

SOURCE = Path("notebooks", "start.py")
NOTEBOOK = SOURCE.with_suffix(".ipynb")


def repository(root: Path = paths.ROOT) -> str:
    """Where the lab can be cloned from, as pyproject.toml says."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["urls"]["Repository"])


def cells(source: str) -> list[dict[str, Any]]:
    """The cells of a source. Raises ValueError for text before the first one."""
    before, *parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)
    if before.strip():
        raise ValueError("the source must begin with a cell: # %%")
    made = []
    for number, (mark, body) in enumerate(zip(parts[::2], parts[1::2], strict=True), start=1):
        text = body.strip("\n")
        cell: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}}
        if mark.strip() == "[markdown]":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
            cell |= {"cell_type": "markdown"}
        else:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        made.append({**cell, "source": text.splitlines(keepends=True)})
    return made


def render(root: Path = paths.ROOT) -> str:
    """The notebook's text."""
    source = (root / SOURCE).read_text(encoding="utf-8")
    notebook = {
        "cells": cells(source.replace("@repository@", repository(root))),
        "metadata": {
            "accelerator": "GPU",
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main(argv: Sequence[str], root: Path = paths.ROOT) -> int:
    """Write the notebook, or with --check say whether it is out of date; returns the exit code."""
    if list(argv) not in ([], ["--check"]):
        fail(f"unknown words: {' '.join(argv)}\nType: python -m labkit.notebook [--check]")
        return 2
    made, file = render(root), root / NOTEBOOK
    if not argv:
        files.write_text(file, made)
        print(f"wrote {NOTEBOOK.as_posix()}")
    elif not file.is_file() or file.read_text(encoding="utf-8") != made:
        fail(f"{NOTEBOOK.as_posix()} is out of date\nType: python -m labkit.notebook")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
