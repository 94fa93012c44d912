"""Tests that grade the wording of a message which the exercise's docstring does not give.

A learner can know what is raised and when, but not in which words. So a test that carries an
exercise's mark may use `match=` only with words of that exercise's docstring.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from labkit import surgery
from labkit.exercises.listing import Exercise, show


def unannounced(e: Exercise, files: Sequence[str], root: Path) -> list[str]:
    """One line for each `match=` in the tests of `e` that asks for other words than its
    docstring's.
    """
    node = surgery.functions(surgery.read(e.file))[e.function]
    known = set(_words(ast.get_docstring(node) or ""))
    faults = []
    for file in files:
        for call, pattern in _matches(ast.parse(surgery.read(Path(file))), e.name):
            if strange := [word for word in _words(pattern) if word not in known]:
                where = f"{show(Path(file), root)}:{call.lineno}"
                words = ", ".join(dict.fromkeys(strange))
                faults.append(f"{where} grades wording that the docstring does not give: {words}")
    return faults


def _matches(tree: ast.Module, exercise: str) -> Iterator[tuple[ast.Call, str]]:
    """Calls with a `match=` in the functions marked for the exercise, and the literal text."""
    for function in ast.walk(tree):
        if not isinstance(function, surgery.FunctionNode):
            continue
        marks = [d for d in function.decorator_list if isinstance(d, ast.Call)]
        if not any(exercise in map(_literal, mark.args) for mark in marks):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("raises", "warns")):
                for keyword in node.keywords:
                    if keyword.arg == "match":
                        yield node, _text(keyword.value)


def _literal(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _text(node: ast.expr) -> str:
    """The words written out in a pattern, f-strings and `re.escape` included."""
    parts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
    return " ".join(part for part in parts if isinstance(part, str))


def _words(text: str) -> list[str]:
    """Words of a docstring or a pattern, in lower case and without a plural's or a verb's s."""
    plain = re.sub(r"\\[a-zA-Z]", " ", text)  # \d, \b
    return [word.lower().rstrip("s") for word in re.findall(r"[A-Za-z_]{2,}", plain)]
