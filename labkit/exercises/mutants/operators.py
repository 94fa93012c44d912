"""Mutation operators: small mistakes made by changing the syntax tree.

`edits(source, function)` yields, for one function, the operator's name and a piece of text to put
in place of another. Only text is changed, so every other line stays byte for byte. Messages are not
graded: a `raise`, an `assert`'s message and a `warnings.warn` are left unchanged. To the usual
operators (Jia and Harman, "An analysis and survey of the development of mutation testing", 2011)
come those that array code needs: dimensions, `keepdim`, dtypes, devices, in-place arithmetic and
detached gradients.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator

from labkit import surgery
from labkit.exercises.mutants.expressions import ARITHMETIC, Expressions
from labkit.exercises.mutants.text import SYMBOLS, Edit, Text, group


class Mutator(Expressions):
    """The edits of one function. Each method named after a node of the tree yields that node's."""

    def __init__(self, source: str, function: str) -> None:
        self.text, tree = Text(source), ast.parse(source)
        self.function = surgery.functions(source)[function]
        arguments = self.function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        self.arguments = [a for a in every if a.arg not in ("self", "cls")]
        self.modules = {
            (alias.asname or alias.name).partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {"F"}
        first = self.function.body[0]
        skip_doc = ast.get_docstring(self.function, clean=False) is not None
        self.body = self.function.body[1 if skip_doc else 0 :]
        self.first = self.body[0] if self.body else first
        self.parents: dict[ast.AST, ast.AST] = {}

    def edits(self) -> Iterator[Edit]:
        yield from self._ignored()
        defaults = [d for d in self.function.args.defaults if d]
        defaults += [d for d in self.function.args.kw_defaults if d]
        for default in defaults:
            for edit in itertools.islice(self._visit(default, self.function), 1):
                yield ("default", *edit[1:])
        for statement in self.body:
            yield from self._visit(statement, self.function)

    def _visit(self, node: ast.AST, parent: ast.AST) -> Iterator[Edit]:
        self.parents[node] = parent
        if isinstance(node, ast.Raise) or self._warns(node):
            return
        if method := getattr(self, f"_{type(node).__name__}", None):
            yield from method(node)
        if isinstance(node, ast.JoinedStr):
            return  # before Python 3.12 its parts have no positions
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list") or (
                isinstance(node, ast.Assert) and name == "msg"
            ):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._visit(child, node)

    def _warns(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("warn")

    # ---- the function as a whole

    def _ignored(self) -> Iterator[Edit]:
        """An argument ignored (its default always), or its gradient lost."""
        line = self.text.starts[self.first.lineno - 1]
        indent = self.text.cut(line, self.text.start(self.first))
        if indent.strip():  # def f(x): return x
            return
        returned = ast.unparse(self.function.returns) if self.function.returns else ""
        spec = self.function.args
        positional = [*spec.posonlyargs, *spec.args]
        pairs = [*zip(positional[::-1], spec.defaults[::-1], strict=False)]
        pairs += [(a, d) for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d]
        for argument, default in pairs:
            text = f"{indent}{argument.arg} = {self.text.of(default)}\n"
            yield "argument ignored", line, line, text
        for argument in self.arguments:
            annotation = ast.unparse(argument.annotation) if argument.annotation else ""
            if annotation.startswith("Tensor") and "Tensor" in returned:
                name = argument.arg
                drop = f"{name} = {name}.detach()"
                if "None" in annotation:
                    drop = f"{name} = None if {name} is None else {name}.detach()"
                yield "gradient lost", line, line, f"{indent}{drop}\n"

    # ---- statements

    def _If(self, node: ast.If) -> Iterator[Edit]:
        if all(isinstance(statement, ast.Raise) for statement in node.body):
            yield self.put("guard dropped", node.test, "False")
            return
        yield from self._IfExp(node)

    def _While(self, node: ast.While) -> Iterator[Edit]:
        if not isinstance(node.test, ast.Constant):
            yield self.put("condition negated", node.test, f"not ({self.text.of(node.test)})")

    def _Expr(self, node: ast.Expr) -> Iterator[Edit]:
        if isinstance(node.value, ast.Call):
            yield self.put("statement deleted", node, "pass")

    def _Break(self, node: ast.Break) -> Iterator[Edit]:
        yield self.put("statement deleted", node, "pass")

    def _Continue(self, node: ast.Continue) -> Iterator[Edit]:
        yield self.put("statement deleted", node, "pass")
        yield self.put("statement exchanged", node, "break")

    def _AugAssign(self, node: ast.AugAssign) -> Iterator[Edit]:
        yield self.put("statement deleted", node, "pass")
        old = SYMBOLS[type(node.op)]
        target, value = self.text.of(node.target), self.text.of(node.value)
        if new := ARITHMETIC.get(old):
            yield self.put("arithmetic", node, f"{target} {new}= {value}")
        yield self.put("arithmetic", node, f"{target} = {value}")
        if target in {argument.arg for argument in self.arguments}:
            yield self.put("in place", node, f"{target} = {target} {old} {group(value)}")

    def _Assign(self, node: ast.Assign) -> Iterator[Edit]:
        target = node.targets[0]
        if len(node.targets) > 1:
            return
        if not isinstance(target, ast.Name):
            if isinstance(target, (ast.Attribute, ast.Subscript)):
                yield self.put("statement deleted", node, "pass")
            return
        if any(isinstance(n, ast.Name) and n.id == target.id for n in ast.walk(node.value)):
            yield self.put("statement deleted", node, "pass")
        value = node.value
        if (
            isinstance(value, ast.BinOp)
            and isinstance(value.left, ast.Name)
            and value.left.id == target.id
            and target.id in {argument.arg for argument in self.arguments}
            and not isinstance(value.op, ast.MatMult)
        ):
            right = self.text.of(value.right)
            yield self.put("in place", node, f"{target.id} {SYMBOLS[type(value.op)]}= {right}")

    def _Return(self, node: ast.Return) -> Iterator[Edit]:
        if isinstance(node.value, ast.Tuple) and len(node.value.elts) > 1:
            first, second = node.value.elts[:2]
            start, end = self.text.start(first), self.text.end(second)
            between = self.text.cut(self.text.end(first), self.text.start(second))
            swapped = self.text.of(second) + between + self.text.of(first)
            yield "result exchanged", start, end, swapped
        returns = ast.unparse(self.function.returns) if self.function.returns else ""
        if node.value is None or isinstance(node.value, ast.Constant):
            return
        kinds = [ast.unparse(a.annotation) for a in self.arguments if a.annotation]
        if returns == "Tensor" and any(kind.startswith("Tensor") for kind in kinds):
            yield self.put("gradient lost", node.value, f"({self.text.of(node.value)}).detach()")
        if returns == "bool":
            yield self.put("condition negated", node.value, f"not ({self.text.of(node.value)})")
