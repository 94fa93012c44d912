"""Source text by byte offsets, as the syntax tree counts, and the symbols of its operators."""

from __future__ import annotations

import ast
import itertools
import re

from labkit import surgery

Edit = tuple[str, int, int, str]
"""Operator, first byte and end of the text that goes, and the text that comes."""

SYMBOLS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**", ast.MatMult: "@", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.LShift: "<<", ast.RShift: ">>",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


class Text:
    """Source text by byte offsets, as the syntax tree counts columns."""

    def __init__(self, source: str) -> None:
        lines = [line.encode() for line in surgery.lines_of(source)]
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
        """The position of the symbol `old` between two operands, if it is there just once."""
        gap = self.cut(self.end(left), self.start(right))
        pattern = r"\s+".join(re.escape(word) for word in old.split())
        found = list(re.finditer(pattern, gap))
        if len(found) != 1 or "#" in gap:
            return None
        before = len(gap[: found[0].start()].encode())
        return self.end(left) + before, self.end(left) + before + len(found[0].group())


def group(text: str) -> str:
    return text if re.fullmatch(r"[\w.]+", text) else f"({text})"


def more(node: ast.expr, text: str, change: int) -> str:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return f"{group(text)} {'+' if change > 0 else '-'} {abs(change)}"
    return str(value + change) if isinstance(value, int) else text
