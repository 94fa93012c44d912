"""Surgery on a week's source text: finding exercises, taking their bodies out, planting bugs.

Nothing is imported and nothing is reformatted: the syntax tree says which lines to change, and
every other line stays byte for byte, line breaks included. Functions go by "function" or
"Class.method".
"""

from __future__ import annotations

import ast
import io
import itertools
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def read(file: Path) -> str:
    """A file's text with its line breaks as they are; `Path.read_text` would make all one kind."""
    with file.open(encoding="utf-8", newline="") as text:
        return text.read()


def write(file: Path, source: str) -> None:
    with file.open("w", encoding="utf-8", newline="") as text:
        text.write(source)


def functions(source: str | ast.Module) -> dict[str, FunctionNode]:
    """Top-level functions and methods by name; of two with one name the later, as in Python."""

    def walk(tree: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, FunctionNode]]:
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                yield from walk(node, f"{prefix}{node.name}.")
            elif isinstance(node, FunctionNode):
                yield prefix + node.name, node

    if isinstance(source, str):
        source = ast.parse(source.removeprefix("\ufeff"))  # a byte-order mark
    return dict(walk(source, ""))


def minutes(node: FunctionNode) -> int | None:
    """The number in the function's `@exercise(...)`, or None when it is not an exercise."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call):
            called = decorator.func
            if getattr(called, "id", getattr(called, "attr", "")) == "exercise":
                values = [*decorator.args, *(keyword.value for keyword in decorator.keywords)]
                return int(ast.literal_eval(values[0]))
    return None


def exercises(source: str) -> dict[str, FunctionNode]:
    return {name: node for name, node in functions(source).items() if minutes(node) is not None}


def blank(source: str, names: Iterable[str], module: str = "") -> str:
    """`source` without the bodies of the exercises `names`.

    Decorators, signatures, annotations, docstrings and all comments outside stay byte for byte; a
    body becomes `raise NotImplementedError("exercise: <module>.<name>")`.
    Raises ValueError when a name is not an exercise of this source.
    """
    marked, wanted = exercises(source), set(names)
    if unknown := wanted - marked.keys():
        raise ValueError(f"no exercise of this name: {', '.join(sorted(unknown))}")
    lines = lines_of(source)
    for name in sorted(wanted, key=lambda name: marked[name].lineno, reverse=True):
        full = f"{module}.{name}" if module else name
        _replace_body(lines, marked[name], f'raise NotImplementedError("exercise: {full}")')
    return "".join(lines)


def is_blank(node: FunctionNode) -> bool:
    """Whether the body is still the one that `blank` wrote."""
    body = node.body[1:] if _docstring(node) else node.body
    raised = ast.unparse(body[0]) if len(body) == 1 else ""
    return raised.startswith("raise NotImplementedError('exercise: ")


def mutate(source: str, name: str, old: str, new: str) -> str:
    """`source` with `old` replaced by `new` inside the function `name`, outside its docstring.

    Raises ValueError unless `old` occurs exactly once there and the change changes the program.
    """
    node = functions(source).get(name)
    if node is None:
        raise ValueError(f"there is no function {name}")
    lines, doc = lines_of(source), _docstring(node)
    ends = [0, node.lineno - 1, node.end_lineno or 0, len(lines)]
    if doc is not None:
        ends[2:2] = [doc.lineno - 1, doc.end_lineno or 0]
    parts = ["".join(lines[i:j]) for i, j in itertools.pairwise(ends)]
    inside = range(1, len(parts) - 1, 2)  # parts: before, signature[, docstring, body], after
    count = sum(parts[i].count(old) for i in inside) if old else 0
    if count != 1:
        raise ValueError(f"{old!r} occurs {count} times in {name}; it must occur exactly once")
    for i in inside:
        parts[i] = parts[i].replace(old, new)
    return _changed(source, "".join(parts), name, f"{new!r} for {old!r}")


def replace_body(source: str, name: str, body: str) -> str:
    """`source` with the statements `body` in place of the function's own; the docstring stays.

    Raises ValueError where there is no such function, and for invalid Python or no change.
    """
    node = functions(source).get(name)
    if node is None:
        raise ValueError(f"there is no function {name}")
    lines = lines_of(source)
    first = node.body[0]
    before = _cut(lines[first.lineno - 1], first.col_offset)
    if before.strip():
        raise ValueError(f"{name} is on one line; use replace and with")
    text = textwrap.indent(textwrap.dedent(body).strip("\n"), before).removeprefix(before)
    _replace_body(lines, node, text)
    return _changed(source, "".join(lines), name, "this body")


def _changed(source: str, mutant: str, name: str, what: str) -> str:
    """`mutant`, if it is valid Python and differs. Raises ValueError."""
    try:
        after = functions(mutant)  # the change is inside the function, or took it away
        changed = name not in after or ast.dump(after[name]) != ast.dump(functions(source)[name])
    except SyntaxError as error:
        raise ValueError(f"with {what} it is not Python ({error.msg})") from error
    if not changed:
        raise ValueError(f"{what} changes nothing")
    return mutant


def _replace_body(lines: list[str], node: FunctionNode, statement: str) -> None:
    """Put `statement` in place of the body, after its docstring."""
    first, doc = node.body[0], _docstring(node)
    top = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", []))]) - 1
    before = _cut(lines[top], first.col_offset)
    inline = bool(before.strip())  # def f(x): return x
    if doc is not None:
        keep = (doc.end_lineno or 0) - 1
        inline = inline or (len(node.body) > 1 and node.body[1].lineno == doc.end_lineno)
        head = _cut(lines[keep], doc.end_col_offset) + "; " if inline else lines[keep]
    elif inline:
        keep, head = top, before
    else:  # comments between signature and body belong to the body
        keep = top - 1
        while not lines[keep].strip() or lines[keep].lstrip().startswith("#"):
            keep -= 1
        head = lines[keep]
    end = _end_of_body(lines, node)
    ending = lines[end - 1][len(lines[end - 1].rstrip("\r\n")) :]
    if not inline:
        text = head.rstrip("\r\n")
        head = text + (head[len(text) :] or "\n") + before
    lines[keep:end] = [head + statement + ending]


def _end_of_body(lines: list[str], node: FunctionNode) -> int:
    """Number of the body's last line; comments at its end, deeper than the `def`, belong to it."""
    end = node.end_lineno or 0
    for i in range(end, len(lines)):
        text = lines[i].lstrip()
        if text.startswith("#") and len(lines[i]) - len(text) > node.col_offset:
            end = i + 1
        elif text:
            break
    return end


def _docstring(node: FunctionNode) -> ast.stmt | None:
    return node.body[0] if ast.get_docstring(node, clean=False) is not None else None


def lines_of(source: str) -> list[str]:
    """Lines as Python counts them, each with its line break (`str.splitlines` also cuts at \\f)."""
    return io.StringIO(source, newline="").readlines()


def _cut(line: str, column: int | None) -> str:
    """The text left of `column`, which the syntax tree counts in UTF-8 bytes."""
    return line.encode()[:column].decode()
