"""The calculator against Python's own parser, and against what must never be computed."""

from __future__ import annotations

import ast
import operator
import random
import time
from fractions import Fraction

import pytest

from agents.calculator import (
    DEPTH,
    LONGEST,
    CalculatorError,
    Reader,
    calculate,
    combine,
    evaluate,
    expression,
    operand,
    show,
    tokenize,
)

BINARY = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
BOTH = [
    pytest.mark.exercise("calculator.expression"), pytest.mark.exercise("calculator.operand"),
]  # fmt: skip


def both(test):
    """Graded for both halves of the parser."""
    for mark in BOTH:
        test = mark(test)
    return test


def by_python(text: str) -> Fraction:
    """The value by Python's grammar, on exact fractions."""

    def value(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(str(node.value))
        if isinstance(node, ast.UnaryOp):
            inner = value(node.operand)
            return -inner if isinstance(node.op, ast.USub) else inner
        assert isinstance(node, ast.BinOp)
        left, right = value(node.left), value(node.right)
        if isinstance(node.op, ast.Pow):
            if right.denominator != 1 or abs(right) > 60:
                raise CalculatorError("not here")
            return Fraction(left ** int(right))
        return BINARY[type(node.op)](left, right)

    return value(ast.parse(text, mode="eval").body)


def random_expression(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([str(rng.randint(0, 20)), f"{rng.randint(0, 9)}.{rng.randint(0, 9)}"])
    kind = rng.random()
    if kind < 0.15:
        return f"-{random_expression(rng, depth - 1)}"
    if kind < 0.2:
        return f"+{random_expression(rng, depth - 1)}"
    if kind < 0.4:
        return f"({random_expression(rng, depth - 1)})"
    if kind < 0.52:
        signs = rng.choice(["", "-"])
        return f"{random_expression(rng, depth - 1)}**{signs}{rng.randint(0, 3)}"
    between = rng.choice(["+", "-", "*", "/", " - ", " / "])
    return f"{random_expression(rng, depth - 1)}{between}{random_expression(rng, depth - 1)}"


@both
def test_random_expressions_have_the_value_that_python_gives_them() -> None:
    rng = random.Random(0)
    compared = refused = 0
    while compared < 600:
        text = random_expression(rng, 5)
        if len(text) > LONGEST:
            continue
        try:
            wanted = by_python(text)
        except ZeroDivisionError:
            with pytest.raises(CalculatorError):
                evaluate(text)
            refused += 1
            continue
        except (CalculatorError, OverflowError):
            continue
        try:
            found = evaluate(text)
        except CalculatorError as error:
            if "bits" in str(error):
                continue
            raise
        assert found == wanted, text
        compared += 1
    assert refused > 5


@both
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8-3-2", 3),
        ("8-(3-2)", 7),
        ("16/4/2", 2),
        ("2**3**2", 512),
        ("-2**2", -4),
        ("(-2)**2", 4),
        ("2**-1", Fraction(1, 2)),
        ("2**-2**2", Fraction(1, 16)),
        ("-2*-3", 6),
        ("--3", 3),
        ("+-+3", -3),
        ("2+3*4", 14),
        ("2*3+4", 10),
        ("-3+5", 2),
        ("-6/4", Fraction(-3, 2)),
        ("0.1+0.2", Fraction(3, 10)),
        (".5*4", 2),
        ("7.", 7),
        ("1,234*2", 2468),
        ("2^3", 8),
        ("6÷4×2", 3),
        ("5−7", -2),
        ("40*15%", 6),
        ("50%%", Fraction(1, 200)),
        ("(10+5)%", Fraction(3, 20)),
        ("-50%", Fraction(-1, 2)),
        ("3-50%*2", 2),
        ("0**0", 1),
        (" 1 +\t1 ", 2),
        ("((((7))))", 7),
        ("1**999999999", 1),
        ("(-1)**1000001", -1),
        ("0**5", 0),
    ],
)
def test_precedence_and_grouping(text: str, value: Fraction) -> None:
    assert evaluate(text) == value


@both
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ends where a number is expected"),
        ("   ", "ends where"),
        ("2+", "ends where"),
        ("-", "ends where"),
        ("(", "ends where"),
        ("*3", "a number is expected before '*'"),
        ("2+*3", "a number is expected before '*'"),
        (")", "a number is expected before ')'"),
        ("()", "a number is expected before ')'"),
        ("%5", "a number is expected before '%'"),
        ("(1+2", "a closing parenthesis is missing"),
        ("1+2)", "an operator is expected before ')'"),
        ("(1 2)", "a closing parenthesis is missing"),
        ("7%3", "an operator is expected before '3'"),
        ("2 3", "an operator is expected before '3'"),
        ("1/0", "division by zero"),
        ("0**-1", "division by zero"),
        ("2**0.5", "a whole number"),
        ("9**9**9", "more than 1000 bits"),
        ("2**1001", "more than 1000 bits"),
        ("2**-1001", "more than 1000 bits"),
        ("2**500*2**501", "more than 1000 bits"),
        ("1//2", "expected before '/'"),
    ],
)
def test_what_has_no_value_says_why(text: str, said: str) -> None:
    with pytest.raises(
        CalculatorError, match=said.replace("(", r"\(").replace(")", r"\)").replace("*", r"\*")
    ):
        evaluate(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os", "'import os' is no number"),
        ("1if 1else 2", "is no number"),
        ("१", "is no number"),
        ("1e9", "'e9' is no number"),
        ("1,23", "',23' is no number"),
        ("__import__('os')", "is no number"),
        ("[1]", "is no number"),
    ],
)
def test_what_is_no_arithmetic_is_not_even_read(text: str, said: str) -> None:
    with pytest.raises(
        CalculatorError, match=said.replace("(", r"\(").replace(")", r"\)").replace("*", r"\*")
    ):
        evaluate(text)


@both
def test_depth_is_bounded_and_counts_what_is_open_only() -> None:
    deep = "(" * DEPTH + "1" + ")" * DEPTH
    assert evaluate(deep) == 1
    assert evaluate("-" * DEPTH + "1") == (-1) ** DEPTH
    for text in (f"({deep})", f"-{deep}", "-" * (DEPTH + 1) + "1"):
        with pytest.raises(CalculatorError, match=f"more than {DEPTH}"):
            evaluate(text)
    assert evaluate("+".join(["(1)"] * 45)) == 45
    assert evaluate("-1" * 90) == -90


@pytest.mark.exercise("calculator.expression")
def test_an_expression_ends_before_what_binds_less() -> None:
    for text, minimum, value, left in (
        ("2*3+4", 2, 6, "+"), ("2**3*4", 3, 8, "*"), ("2**3*4", 4, 8, "*"), ("2+3)", 1, 5, ")"),
        ("2*3", 5, 2, "*"), ("1+2*3", 1, 7, None), ("4 5", 1, 4, "5"),
    ):  # fmt: skip
        reader = Reader(tokenize(text))
        assert expression(reader, minimum) == value
        assert reader.peek() == left


@pytest.mark.exercise("calculator.operand")
def test_an_operand_leaves_what_follows_and_the_depth() -> None:
    for text, value, left in (
        ("12.5+1", Fraction(25, 2), "+"), ("(3+4)*2", 7, "*"), ("-2**2+1", -4, "+"),
        ("-2*3", -2, "*"), ("15%%*2", Fraction(15, 10_000), "*"), ("+7", 7, None),
    ):  # fmt: skip
        reader = Reader(tokenize(text))
        assert operand(reader) == value
        assert reader.peek() == left
        assert reader.depth == 0
    assert isinstance(operand(Reader(["7"])), Fraction)


def test_a_line_of_a_million_digits_is_refused_at_once() -> None:
    begin = time.perf_counter()
    for text in ("9" * 1_000_000, "(" * 1_000_000, "9**" * 400_000):
        with pytest.raises(CalculatorError, match=f"characters; at most {LONGEST}"):
            evaluate(text)
    for text in ("9**9**9**9**9", "(" * LONGEST, ("99**99*" * 20 + "1")[:LONGEST]):
        with pytest.raises(CalculatorError):
            calculate(text)
    assert time.perf_counter() - begin < 1


def test_values_are_shown_as_people_write_them() -> None:
    assert calculate("47*85+12") == "4007"
    assert calculate("47*12%") == "5.64"
    assert calculate("1/3") == "0.3333333333"
    assert calculate("2**100") == str(2**100)
    assert show(Fraction(-7, 2)) == "-3.5"
    assert show(combine("/", Fraction(10**280), Fraction(3))) == "3.333333333e+279"
