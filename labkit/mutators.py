"""Mutation operators: the small mistakes that a syntax tree can be made to make.

`edits(source, function)` yields, for one function, the operator's name and a piece of text to put
in place of another. Only text is changed, so every other line stays byte for byte. What a message
says is not graded: whatever stands in a `raise`, an `assert`'s message or a `warnings.warn` is left
alone. The usual operators of the field (Jia and Harman, "An analysis and
survey of the development of mutation testing", 2011) stand beside those that array code needs:
dimensions, `keepdim`, dtypes, devices, in-place arithmetic and detached gradients.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from labkit import blanks

Edit = tuple[str, int, int, str]
"""Operator, first byte and end of the text that goes, and the text that comes."""

SYMBOLS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.MatMult: "@", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.LShift: "<<", ast.RShift: ">>",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
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


class _Text:
    """Source text by byte offsets, as the syntax tree counts columns."""

    def __init__(self, source: str) -> None:
        lines = [line.encode() for line in blanks.lines_of(source)]
        self.data = b"".join(lines)
        self.starts = [0, *itertools.accumulate(map(len, lines))]

    def start(self, node: ast.AST) -> int:
        return self.starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def cut(self, start: int, end: int) -> str:
        return self.data[start:end].decode()

    def of(self, node: ast.AST) -> str:
        return self.cut(self.start(node), self.end(node))

    def swap(self, left: ast.AST, right: ast.AST, old: str) -> tuple[int, int] | None:
        """Where the symbol `old` stands between two operands, if it stands there just once."""
        gap = self.cut(self.end(left), self.start(right))
        pattern = r"\s+".join(re.escape(word) for word in old.split())
        found = list(re.finditer(pattern, gap))
        if len(found) != 1 or "#" in gap:
            return None
        before = len(gap[: found[0].start()].encode())
        return self.end(left) + before, self.end(left) + before + len(found[0].group())


class Mutator:
    """The edits of one function. Each method named after a node of the tree yields that node's."""

    def __init__(self, source: str, function: str) -> None:
        self.text, tree = _Text(source), ast.parse(source)
        self.function = blanks.functions(source)[function]
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
            return  # before Python 3.12 its parts do not know where they stand
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

    def _put(self, operator: str, node: ast.AST, text: str) -> Edit:
        return operator, self.text.start(node), self.text.end(node), text

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

    def _Name(self, node: ast.Name) -> Iterator[Edit]:
        names = [argument.arg for argument in self.arguments]
        if node.id not in names or not isinstance(node.ctx, ast.Load):
            return
        kinds = {a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in self.arguments}
        place = names.index(node.id)
        for other in names[place + 1 :] + names[:place]:
            if kinds[other] == kinds[node.id]:
                yield self._put("argument exchanged", node, other)
                return

    # ---- expressions

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
            yield self._put("arithmetic", node, _group(f"{left} {new} {right}"))
        if old != "%" and not isinstance(node.left, ast.Constant):
            yield self._put("operand dropped", node, _group(left))
        if not isinstance(node.right, ast.Constant) or old in "+-":
            yield self._put("operand dropped", node, _group(right))
        if old in ("-", "/"):
            yield self._put("operands exchanged", node, f"({_group(right)} {old} {_group(left)})")
        if old == "@":
            yield self._put("operands exchanged", node, f"({_group(right)} {old} {_group(left)})")

    def _UnaryOp(self, node: ast.UnaryOp) -> Iterator[Edit]:
        inside = self.text.of(node)[3 if isinstance(node.op, ast.Not) else 1 :].strip()
        yield self._put("sign or not dropped", node, inside)
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            yield from self._number(node, -node.operand.value)  # type: ignore[operator]

    def _JoinedStr(self, node: ast.JoinedStr) -> Iterator[Edit]:
        text = self.text.of(node)
        for found in itertools.islice(re.finditer(r"\{[^{}]+\}|\\n", text), 4):
            yield self._put("text", node, text[: found.start()] + text[found.end() :])

    def _Constant(self, node: ast.Constant) -> Iterator[Edit]:
        if isinstance(node.value, str) and node.value:
            if not isinstance(self.parents[node], ast.Expr):
                yield self._put("text", node, '""')
        elif isinstance(node.value, bool):
            yield self._put("boolean", node, str(not node.value))
        elif not isinstance(parent := self.parents[node], ast.UnaryOp) or not isinstance(
            parent.op, ast.USub
        ):
            yield from self._number(node, node.value)

    def _number(self, node: ast.expr, value: object) -> Iterator[Edit]:
        parent = self.parents[node]
        if isinstance(value, int) and not isinstance(value, bool):
            if isinstance(parent, ast.keyword) and parent.arg in ("dim", "axis"):
                for new in {-1: (-2, 0), 0: (1, -1)}.get(value, (value - 1,)):
                    yield self._put("dimension", node, str(new))
            elif not isinstance(parent, ast.Slice):
                for new in (value + 1, value - 1) if abs(value) <= 20 else (value * 2, value // 2):
                    yield self._put("integer", node, str(new))
        elif isinstance(value, float):
            others: tuple[float, ...]
            if value in (0.0, 1.0):
                others = (1.0 - value,)
            elif abs(value) < 1e-3:  # a guard or a tolerance: twice it is often the same
                others = (0.0, value * 1e3)
            else:
                others = (value * 1.1, -value) if value == value and abs(value) < 1e9 else ()
            for number in others:
                yield self._put("float", node, repr(number))

    def _BoolOp(self, node: ast.BoolOp) -> Iterator[Edit]:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        places = [self.text.swap(a, b, old) for a, b in itertools.pairwise(node.values)]
        if any(place is None for place in places):
            return
        edges = [self.text.start(node), *itertools.chain(*places), self.text.end(node)]  # type: ignore[arg-type]
        parts = [self.text.cut(a, b).strip() for a, b in zip(edges[::2], edges[1::2], strict=True)]
        yield self._put("and or", node, "(" + f" {new} ".join(map(_group, parts)) + ")")
        for number in range(len(parts)):
            rest = parts[:number] + parts[number + 1 :]
            yield self._put("condition dropped", node, _group(f" {old} ".join(rest)))

    def _IfExp(self, node: ast.IfExp | ast.If) -> Iterator[Edit]:
        for value in ("True", "False"):
            yield self._put("condition fixed", node.test, value)

    def _comprehension(self, node: ast.comprehension) -> Iterator[Edit]:
        for test in node.ifs:
            yield self._put("condition fixed", test, "True")
            yield self._put("condition negated", test, f"not ({self.text.of(test)})")

    def _Slice(self, node: ast.Slice) -> Iterator[Edit]:
        lower, upper = node.lower, node.upper
        if lower is not None:
            yield self._put("slice", lower, _more(lower, self.text.of(lower), 1))
        elif upper is not None:
            yield "slice", self.text.start(node), self.text.start(node), "1"
        if upper is not None:
            yield self._put("slice", upper, _more(upper, self.text.of(upper), -1))
            if lower is not None or isinstance(upper, ast.UnaryOp):
                yield self._put("slice", upper, "")
        elif lower is not None and node.step is None:
            yield "slice", self.text.end(node), self.text.end(node), "-1"

    def _Attribute(self, node: ast.Attribute) -> Iterator[Edit]:
        end = self.text.end(node)
        if node.attr in SWAP and isinstance(node.ctx, ast.Load):
            yield "function", end - len(node.attr), end, SWAP[node.attr]
        if node.attr in ("T", "mT"):
            yield self._put("call dropped", node, self.text.of(node.value))

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
                yield self._put("call dropped", node, kept.rstrip())
            if name in IN_PLACE and owner in {a.arg for a in self.arguments}:
                end = self.text.end(node.func)
                yield "in place", end, end, "_"
        elif function and name in ("min", "max", "all", "any", "sum"):
            if name != "sum":
                yield self._put("function", node.func, SWAP[name])
            for argument in node.args if len(node.args) == 2 else ():
                yield self._put("call dropped", node, _group(self.text.of(argument)))
        if function and name in DROP and node.args:
            for argument in node.args if name in ("maximum", "minimum") else node.args[:1]:
                yield self._put("call dropped", node, _group(self.text.of(argument)))
        if function and name == "range":
            last = node.args[-1 if len(node.args) < 3 else 1]
            yield self._put("range", last, f"{_group(self.text.of(last))} - 1")
            yield self._put("range", last, f"{_group(self.text.of(last))} + 1")
            if len(node.args) == 1:
                yield self._put("range", last, f"1, {self.text.of(last)}")

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

    # ---- statements

    def _If(self, node: ast.If) -> Iterator[Edit]:
        if all(isinstance(statement, ast.Raise) for statement in node.body):
            yield self._put("guard dropped", node.test, "False")
            return
        yield from self._IfExp(node)

    def _While(self, node: ast.While) -> Iterator[Edit]:
        if not isinstance(node.test, ast.Constant):
            yield self._put("condition negated", node.test, f"not ({self.text.of(node.test)})")

    def _Expr(self, node: ast.Expr) -> Iterator[Edit]:
        if isinstance(node.value, ast.Call):
            yield self._put("statement deleted", node, "pass")

    def _Break(self, node: ast.Break) -> Iterator[Edit]:
        yield self._put("statement deleted", node, "pass")

    def _Continue(self, node: ast.Continue) -> Iterator[Edit]:
        yield self._put("statement deleted", node, "pass")
        yield self._put("statement exchanged", node, "break")

    def _AugAssign(self, node: ast.AugAssign) -> Iterator[Edit]:
        yield self._put("statement deleted", node, "pass")
        old = SYMBOLS[type(node.op)]
        target, value = self.text.of(node.target), self.text.of(node.value)
        if new := ARITHMETIC.get(old):
            yield self._put("arithmetic", node, f"{target} {new}= {value}")
        yield self._put("arithmetic", node, f"{target} = {value}")
        if target in {argument.arg for argument in self.arguments}:
            yield self._put("in place", node, f"{target} = {target} {old} {_group(value)}")

    def _Assign(self, node: ast.Assign) -> Iterator[Edit]:
        target = node.targets[0]
        if len(node.targets) > 1:
            return
        if not isinstance(target, ast.Name):
            if isinstance(target, (ast.Attribute, ast.Subscript)):
                yield self._put("statement deleted", node, "pass")
            return
        if any(isinstance(n, ast.Name) and n.id == target.id for n in ast.walk(node.value)):
            yield self._put("statement deleted", node, "pass")
        value = node.value
        if (
            isinstance(value, ast.BinOp)
            and isinstance(value.left, ast.Name)
            and value.left.id == target.id
            and target.id in {argument.arg for argument in self.arguments}
            and not isinstance(value.op, ast.MatMult)
        ):
            right = self.text.of(value.right)
            yield self._put("in place", node, f"{target.id} {SYMBOLS[type(value.op)]}= {right}")

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
            yield self._put("gradient lost", node.value, f"({self.text.of(node.value)}).detach()")
        if returns == "bool":
            yield self._put("condition negated", node.value, f"not ({self.text.of(node.value)})")


def _group(text: str) -> str:
    return text if re.fullmatch(r"[\w.]+", text) else f"({text})"


def _more(node: ast.expr, text: str, change: int) -> str:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return f"{_group(text)} {'+' if change > 0 else '-'} {abs(change)}"
    return str(value + change) if isinstance(value, int) else text
