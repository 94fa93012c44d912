"""A calculator for language models: a parser with precedence climbing, and exact fractions.

    + -    *  /    unary -    **    %            from loose to tight; `**` groups to the right
    -2**2 = -4     2**3**2 = 512     8-3-2 = 3     40*15% = 6

Python's `eval` would also run `__import__("os").remove(...)`. Here nothing but numbers, operators
and parentheses is read, and every cost is bounded before it arises: the length of the line, the
depth of its parentheses, and the size of each result.

Pratt 1973, Top Down Operator Precedence; the `minimum` below is his binding power.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from labkit import exercise

LONGEST = 200
"""Characters of an expression."""
DEPTH = 40
"""Parentheses and signs inside each other."""
BITS = 1000
"""Bits of a result's numerator and denominator: about 300 digits."""

BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "**": 4}
UNARY = 3
"""A sign binds tighter than `*` and looser than `**`: -2**2 is -(2**2), as in Python."""
RIGHT = ("**",)
"""Operators that group to the right: 2**3**2 is 2**(3**2)."""
TOKEN = re.compile(
    r"\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+|\*\*|[-+*/^()%×÷−])"
)
SAME = {"^": "**", "×": "*", "÷": "/", "−": "-"}


class CalculatorError(ValueError):
    """The expression has no value; the message says why, in words for a model or a person."""


class Reader:
    """The tokens of an expression, and how far they have been read."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens, self.position, self.depth = list(tokens), 0, 0

    def peek(self) -> str | None:
        """The next token; None at the end."""
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self) -> str | None:
        """The next token, which then counts as read; None at the end."""
        token = self.peek()
        self.position += 1
        return token


def tokenize(text: str) -> list[str]:
    """Numbers, operators and parentheses of `text`. Raises CalculatorError for anything else."""
    if len(text) > LONGEST:
        raise CalculatorError(
            f"the expression has {len(text):,} characters; at most {LONGEST} are read"
        )
    tokens, end = [], 0
    text = text.rstrip()
    while end < len(text):
        found = TOKEN.match(text, end)
        if found is None:
            raise CalculatorError(
                f"{text[end:].lstrip()[:20]!r} is no number and no operator; write numbers, "
                "+ - * / ** % and parentheses"
            )
        token = found[1].replace(",", "")
        tokens.append(SAME.get(token, token))
        end = found.end()
    return tokens


@exercise(minutes=25)
def expression(reader: Reader, minimum: int = 1) -> Fraction:
    """Read the longest expression whose operators all bind with `minimum` or more; its value.

    It begins with `operand(reader)`. As long as the next token is a binary operator, a key of
    BINDING, whose binding is at least `minimum`: take it, read its right side, and combine both by
    `combine(operator, left, right)`. The right side is an expression whose operators bind tighter
    than this operator (its binding plus 1), so that equal ones group to the left: 8-3-2 is 3. For
    the operators in RIGHT the same binding is enough, so they group to the right. Any other token
    ends the expression and is not taken.

    Raises CalculatorError as `operand` and `combine` do.
    """
    value = operand(reader)
    while (operator := reader.peek()) in BINDING and BINDING[operator] >= minimum:
        reader.take()
        tighter = BINDING[operator] + (operator not in RIGHT)
        value = combine(operator, value, expression(reader, tighter))
    return value


@exercise(minutes=20)
def operand(reader: Reader) -> Fraction:
    """Read one operand: a number, an expression in parentheses, or a signed operand.

        12.5   (3+4)   -2**2   +7   15%   (10+5)%

    After a sign comes an expression whose operators bind with UNARY or more, so that -2**2 is -4
    and -2*3 is (-2)*3. After a number or a closing parenthesis, each `%` divides by 100. Inside
    parentheses and after a sign, `reader.depth` is 1 higher, and the old depth comes back after it.

    Raises CalculatorError when the tokens end, when a token cannot begin an operand, when a closing
    parenthesis is missing, and when a depth above DEPTH is reached.
    """
    token = reader.take()
    if token is None:
        raise CalculatorError("the expression ends where a number is expected")
    if token in ("(", "-", "+"):
        reader.depth += 1
        if reader.depth > DEPTH:
            raise CalculatorError(f"more than {DEPTH} parentheses or signs inside each other")
        value = expression(reader, 1 if token == "(" else UNARY)
        reader.depth -= 1
        if token != "(":
            return -value if token == "-" else value
        if reader.take() != ")":
            raise CalculatorError("a closing parenthesis is missing")
    elif token[0] in ".0123456789":
        value = Fraction(token)
    else:
        raise CalculatorError(f"a number is expected before {token!r}")
    while reader.peek() == "%":
        reader.take()
        value /= 100
    return value


def combine(operator: str, left: Fraction, right: Fraction) -> Fraction:
    """`left operator right`. Raises CalculatorError for a division by zero, a power that is not
    whole, and a result that is too large."""
    if operator == "**":
        return power(left, right)
    if operator == "/" and right == 0:
        raise CalculatorError("division by zero")
    if operator == "+":
        return bounded(left + right)
    if operator == "-":
        return bounded(left - right)
    return bounded(left * right if operator == "*" else left / right)


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """base ** exponent for whole exponents. Raises CalculatorError before a large result arises."""
    if exponent.denominator != 1:
        raise CalculatorError("an exponent must be a whole number")
    if base == 0 and exponent < 0:
        raise CalculatorError("division by zero")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and base != 0 and (bits - 1) * abs(exponent) > BITS:
        raise CalculatorError(f"the result has more than {BITS} bits")
    if abs(base) == 1:  # a huge exponent costs nothing
        return base if exponent % 2 else Fraction(1)
    if base == 0:
        return Fraction(int(exponent == 0))
    return bounded(base ** int(exponent))


def bounded(value: Fraction) -> Fraction:
    """The value itself. Raises CalculatorError when it is too large to go on with."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
        raise CalculatorError(f"the result has more than {BITS} bits")
    return value


def evaluate(text: str) -> Fraction:
    """The exact value of an expression. Raises CalculatorError, and nothing else, for any text."""
    reader = Reader(tokenize(text))
    value = expression(reader)
    if (rest := reader.peek()) is not None:
        raise CalculatorError(f"an operator is expected before {rest!r}")
    return bounded(value)


def show(value: Fraction) -> str:
    """Whole numbers in full, others as a decimal of at most ten significant digits."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"


def calculate(expression: str) -> str:
    """The tool: an expression to its value, both as text. Raises CalculatorError."""
    return show(evaluate(expression))
