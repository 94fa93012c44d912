"""Mutation operators on expressions (see operators.py)."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from labkit.exercises.mutants.text import SYMBOLS, Edit, Text, group, more

COMPARE = {
    "<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"), "==": ("!=",),
    "!=": ("==",), "is": ("is not",), "is not": ("is",), "in": ("not in",), "not in": ("in",),
}  # fmt: skip
ARITHMETIC = {
    "+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "%": "//", "**": "*", "&": "|", "|": "&",
}  # fmt: skip
_PAIRS = """min max, argmin argmax, amin amax, minimum maximum, sum mean, all any, zeros ones,
zeros_like ones_like, triu tril, floor ceil, sin cos, std var, exp expm1, log log1p, cummax cummin,
add sub, mul div, append extend, rand randn, hstack vstack, prod sum, softmax log_softmax"""
SWAP = {}
for _pair in _PAIRS.split(","):
    _left, _right = _pair.split()
    SWAP[_left] = _right
    SWAP.setdefault(_right, _left)
DROP = set(
    """abs absolute asarray astype ceil clamp clip clone contiguous copy detach double exp expm1
    fabs flatten flip float floor int item log log1p log_softmax long masked_fill maximum minimum
    nan_to_num relu reversed round sigmoid softmax sort sorted sqrt square squeeze tanh to
    transpose tril triu type_as unsqueeze bool conj clamp_min clamp_max ravel""".split()
)
"""Calls that may be left out: `x.f(...)` and `f(x, ...)` become `x`."""
IN_PLACE = {"add", "clamp", "div", "exp", "log", "masked_fill", "mul", "neg", "sub", "sqrt"}


class Expressions:
    """Each method named after a node of the syntax tree yields that node's edits."""

    text: Text
    function: ast.FunctionDef | ast.AsyncFunctionDef
    arguments: list[ast.arg]
    """Of the function, without self and cls."""
    modules: set[str]
    """Names under which modules were imported."""
    parents: dict[ast.AST, ast.AST]

    def put(self, operator: str, node: ast.AST, text: str) -> Edit:
        return operator, self.text.start(node), self.text.end(node), text

    def _Name(self, node: ast.Name) -> Iterator[Edit]:
        names = [argument.arg for argument in self.arguments]
        if node.id not in names or not isinstance(node.ctx, ast.Load):
            return
        kinds = {a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in self.arguments}
        place = names.index(node.id)
        for other in names[place + 1 :] + names[:place]:
            if kinds[other] == kinds[node.id]:
                yield self.put("argument exchanged", node, other)
                return

    def _Compare(self, node: ast.Compare) -> Iterator[Edit]:
        for left, op, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            old = SYMBOLS[type(op)]
            for new in COMPARE[old] if (place := self.text.swap(left, right, old)) else ():
                yield "comparison", *place, new  # type: ignore[misc]

    def _BinOp(self, node: ast.BinOp) -> Iterator[Edit]:
        old = SYMBOLS[type(node.op)]
        place = self.text.swap(node.left, node.right, old)
        if place is None:
            return
        left = self.text.cut(self.text.start(node), place[0]).strip()
        right = self.text.cut(place[1], self.text.end(node)).strip()
        if new := ARITHMETIC.get(old):
            yield self.put("arithmetic", node, group(f"{left} {new} {right}"))
        if old != "%" and not isinstance(node.left, ast.Constant):
            yield self.put("operand dropped", node, group(left))
        if not isinstance(node.right, ast.Constant) or old in "+-":
            yield self.put("operand dropped", node, group(right))
        if old in ("-", "/"):
            yield self.put("operands exchanged", node, f"({group(right)} {old} {group(left)})")
        if old == "@":
            yield self.put("operands exchanged", node, f"({group(right)} {old} {group(left)})")

    def _UnaryOp(self, node: ast.UnaryOp) -> Iterator[Edit]:
        inside = self.text.of(node)[3 if isinstance(node.op, ast.Not) else 1 :].strip()
        yield self.put("sign or not dropped", node, inside)
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            yield from self._number(node, -node.operand.value)  # type: ignore[operator]

    def _JoinedStr(self, node: ast.JoinedStr) -> Iterator[Edit]:
        text = self.text.of(node)
        for found in itertools.islice(re.finditer(r"\{[^{}]+\}|\\n", text), 4):
            yield self.put("text", node, text[: found.start()] + text[found.end() :])

    def _Constant(self, node: ast.Constant) -> Iterator[Edit]:
        if isinstance(node.value, str) and node.value:
            if not isinstance(self.parents[node], ast.Expr):
                yield self.put("text", node, '""')
        elif isinstance(node.value, bool):
            yield self.put("boolean", node, str(not node.value))
        elif not isinstance(parent := self.parents[node], ast.UnaryOp) or not isinstance(
            parent.op, ast.USub
        ):
            yield from self._number(node, node.value)

    def _number(self, node: ast.expr, value: object) -> Iterator[Edit]:
        parent = self.parents[node]
        if isinstance(value, int) and not isinstance(value, bool):
            if isinstance(parent, ast.keyword) and parent.arg in ("dim", "axis"):
                for new in {-1: (-2, 0), 0: (1, -1)}.get(value, (value - 1,)):
                    yield self.put("dimension", node, str(new))
            elif not isinstance(parent, ast.Slice):
                for new in (value + 1, value - 1) if abs(value) <= 20 else (value * 2, value // 2):
                    yield self.put("integer", node, str(new))
        elif isinstance(value, float):
            others: tuple[float, ...]
            if value in (0.0, 1.0):
                others = (1.0 - value,)
            elif abs(value) < 1e-3:  # a guard or a tolerance: twice it is often the same
                others = (0.0, value * 1e3)
            else:
                others = (value * 1.1, -value) if value == value and abs(value) < 1e9 else ()
            for number in others:
                yield self.put("float", node, repr(number))

    def _BoolOp(self, node: ast.BoolOp) -> Iterator[Edit]:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        places = [self.text.swap(a, b, old) for a, b in itertools.pairwise(node.values)]
        if any(place is None for place in places):
            return
        edges = [self.text.start(node), *itertools.chain(*places), self.text.end(node)]  # type: ignore[arg-type]
        parts = [self.text.cut(a, b).strip() for a, b in zip(edges[::2], edges[1::2], strict=True)]
        yield self.put("and or", node, "(" + f" {new} ".join(map(group, parts)) + ")")
        for number in range(len(parts)):
            rest = parts[:number] + parts[number + 1 :]
            yield self.put("condition dropped", node, group(f" {old} ".join(rest)))

    def _IfExp(self, node: ast.IfExp | ast.If) -> Iterator[Edit]:
        for value in ("True", "False"):
            yield self.put("condition fixed", node.test, value)

    def _comprehension(self, node: ast.comprehension) -> Iterator[Edit]:
        for test in node.ifs:
            yield self.put("condition fixed", test, "True")
            yield self.put("condition negated", test, f"not ({self.text.of(test)})")

    def _Slice(self, node: ast.Slice) -> Iterator[Edit]:
        lower, upper = node.lower, node.upper
        if lower is not None:
            yield self.put("slice", lower, more(lower, self.text.of(lower), 1))
        elif upper is not None:
            yield "slice", self.text.start(node), self.text.start(node), "1"
        if upper is not None:
            yield self.put("slice", upper, more(upper, self.text.of(upper), -1))
            if lower is not None or isinstance(upper, ast.UnaryOp):
                yield self.put("slice", upper, "")
        elif lower is not None and node.step is None:
            yield "slice", self.text.end(node), self.text.end(node), "-1"

    def _Attribute(self, node: ast.Attribute) -> Iterator[Edit]:
        end = self.text.end(node)
        if node.attr in SWAP and isinstance(node.ctx, ast.Load):
            yield "function", end - len(node.attr), end, SWAP[node.attr]
        if node.attr in ("T", "mT"):
            yield self.put("call dropped", node, self.text.of(node.value))

    def _Call(self, node: ast.Call) -> Iterator[Edit]:
        yield from self._keywords(node)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if isinstance(self.parents[node], ast.Expr):
            return  # its statement is deleted
        function = isinstance(node.func, ast.Name)
        if isinstance(node.func, ast.Attribute):
            owner = self.text.of(node.func.value)
            function = owner.partition(".")[0] in self.modules
            if name in DROP and not function and owner not in ("self", "cls"):
                dot = self.text.end(node.func) - len(name)
                kept = self.text.cut(self.text.start(node), dot).rstrip().removesuffix(".")
                yield self.put("call dropped", node, kept.rstrip())
            if name in IN_PLACE and owner in {a.arg for a in self.arguments}:
                end = self.text.end(node.func)
                yield "in place", end, end, "_"
        elif function and name in ("min", "max", "all", "any", "sum"):
            if name != "sum":
                yield self.put("function", node.func, SWAP[name])
            for argument in node.args if len(node.args) == 2 else ():
                yield self.put("call dropped", node, group(self.text.of(argument)))
        if function and name in DROP and node.args:
            for argument in node.args if name in ("maximum", "minimum") else node.args[:1]:
                yield self.put("call dropped", node, group(self.text.of(argument)))
        if function and name == "range":
            last = node.args[-1 if len(node.args) < 3 else 1]
            yield self.put("range", last, f"{group(self.text.of(last))} - 1")
            yield self.put("range", last, f"{group(self.text.of(last))} + 1")
            if len(node.args) == 1:
                yield self.put("range", last, f"1, {self.text.of(last)}")

    def _keywords(self, node: ast.Call) -> Iterator[Edit]:
        items = sorted([*node.args, *node.keywords], key=self.text.start)
        for number, item in enumerate(items):
            if not isinstance(item, ast.keyword) or item.arg is None:
                continue
            start, end = self.text.start(item), self.text.end(item)
            if number:
                before = self.text.cut(self.text.end(items[number - 1]), start)
                start -= len(before.encode()) - len(before[: before.rindex(",")].encode())
            elif len(items) > 1:
                end = self.text.start(items[1])
            yield "keyword dropped", start, end, ""
