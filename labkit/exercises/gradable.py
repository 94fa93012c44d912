"""What grades the exercises of a week: the tests that carry their mark."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

from labkit import surgery
from labkit.errors import UsageError
from labkit.exercises.grader import Job
from labkit.exercises.listing import Exercise, python_files, show
from labkit.paths import week_folder


def job_of(
    e: Exercise,
    week: str,
    package: Path,
    tests: dict[str, list[str]],
    root: Path,
    seconds: float,
    edits: dict[str, str] | None = None,
) -> Job:
    """The job that grades `e` in the copy of its week in `package`."""
    return Job(str(root.resolve()), week, str(package), e.name, tests[e.name], seconds, edits)


def graders_of(week: str, root: Path) -> dict[str, list[str]]:
    """Test files that grade each exercise: those with `@pytest.mark.exercise("<name>")` in them."""
    files: dict[str, list[str]] = {}
    for file in python_files(week_folder(root / "tests", week)):
        for node in ast.walk(ast.parse(surgery.read(file))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.exercise"):
                try:
                    (name,) = map(ast.literal_eval, node.args)
                except ValueError:
                    hint = 'write the name out: mark.exercise("module.function")'
                    raise UsageError(f"{show(file, root)}:{node.lineno}: {hint}") from None
                if str(file) not in files.setdefault(name, []):
                    files[name].append(str(file))
    return files


def preload_of(week: str, root: Path) -> list[str]:
    """Library imports of the week's modules (at their top) and of its exercise tests (anywhere)."""
    modules = [ast.parse(surgery.read(file)) for file in python_files(week_folder(root, week))]
    nodes: list[ast.AST] = [node for module in modules for node in module.body]
    graders = {Path(file) for files in graders_of(week, root).values() for file in files}
    for file in [*sorted(graders), root / "tests" / "conftest.py"]:
        nodes += ast.walk(ast.parse(surgery.read(file))) if file.exists() else []
    statements = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        tops = {name.partition(".")[0] for name in names}
        if not any((root / top).is_dir() for top in tops - {"labkit"}):  # never a week itself
            statements.append(ast.unparse(node))
    if any(line.startswith(("import torch", "from torch")) for line in statements):
        statements.append("import torch._dynamo")  # optimisers import it at first use: seconds
    return list(dict.fromkeys(statements))


def progress(total: int) -> Callable[[int], None]:
    """Counts finished jobs on a terminal; prints nothing elsewhere."""

    def done(count: int) -> None:
        if sys.stderr.isatty():
            end = "\r" if count < total else "\r\033[K"
            print(f"{count} of {total} copies graded", end=end, file=sys.stderr, flush=True)

    return done
