"""`lab exercise diff`: your function beside the lab's, once it passes or when you give up."""

from __future__ import annotations

import ast
import difflib
import sys
import textwrap
from pathlib import Path

from labkit import surgery
from labkit.errors import UsageError
from labkit.exercises.check import check
from labkit.exercises.listing import choose, exercises_of, show
from labkit.paths import ROOT, week_folder
from labkit.paths import workspace as default_workspace

COLOURS = {"-": "31", "+": "32", "@": "36"}


def diff(
    week: str,
    only: str,
    give_up: bool = False,
    *,
    root: Path = ROOT,
    workspace: Path | None = None,
) -> int:
    """Print a unified diff from the learner's function to the solution's; returns the exit code.

    Unless `give_up`, the function is graded first, and a failing one is not shown beside the
    solution (exit code 1). Raises UsageError for an unknown week or exercise, and when the week was
    not started.
    """
    (e,) = choose(exercises_of(week, root), only)
    own = week_folder(workspace or default_workspace(), week)
    mine = own / e.file.relative_to(week_folder(root, week))
    if not mine.is_file():
        raise UsageError(f"there is no {show(mine, root)} yet; type\n    lab exercise start {week}")
    if not give_up and check(week, e.name, root=root, workspace=workspace) != 0:
        print(
            f"The solution is shown when it passes, or: lab exercise diff {week} {e.name} --give-up"
        )
        return 1
    lines = list(
        difflib.unified_diff(
            _lines(mine, e.function), _lines(e.file, e.function),
            f"{show(mine, root)} (yours)", f"{show(e.file, root)} (the lab's)", n=100, lineterm="",
        )
    )  # fmt: skip
    for line in lines:
        colour = COLOURS.get(line[:1]) if sys.stdout.isatty() else None
        print(f"\033[{colour}m{line}\033[0m" if colour else line)
    if not lines:
        print("Your function equals the lab's solution, line for line.")
    return 0


def _lines(file: Path, function: str) -> list[str]:
    """The function's own lines without its docstring, moved to the left margin.

    Raises UsageError when the file is not Python or has no such function.
    """
    try:
        text = surgery.read(file)
        node = surgery.functions(text)[function]
    except (SyntaxError, UnicodeDecodeError, KeyError) as error:
        raise UsageError(f"{file} has no function {function} that can be read: {error}") from error
    lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
    if ast.get_docstring(node) is not None and len(node.body) > 1:
        doc = node.body[0]
        del lines[doc.lineno - node.lineno : (doc.end_lineno or doc.lineno) - node.lineno + 1]
    return textwrap.dedent("\n".join(lines)).splitlines()
