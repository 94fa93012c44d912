"""Masks against brute force: a token is allowed when the rest can still be made to match.

The oracle is the `regex` module with its partial matches, on patterns written by hand.
"""

from __future__ import annotations

import contextlib
import itertools
import random

import pytest
import regex
import torch

from agents.calculator import CalculatorError, evaluate
from agents.grammar import DEAD, FAR, Automaton, Constrained, allowed, arithmetic, react_step
from agents.regular import (
    EMPTY,
    NOTHING,
    Regex,
    Star,
    alt,
    chars,
    derivative,
    matches,
    maybe,
    other_than,
    plus,
    seq,
    star,
    text,
)

CASES: list[tuple[Regex, str]] = [
    (text("abc"), "abc"),
    (alt(text("ab"), text("ac"), text("a")), "ab|ac|a"),
    (star(text("ab")), "(ab)*"),
    (seq(star(chars("ab")), text("c")), "[ab]*c"),
    (seq(star(chars("a")), star(chars("b")), chars("a")), "a*b*a"),
    (plus(seq(chars("a"), maybe(chars("b")))), "(ab?)+"),
    (seq(other_than("a"), other_than("bc")), "[^a][^bc]"),
    (seq(maybe(text("ab")), maybe(text("ba")), chars("c")), "(ab)?(ba)?c"),
    (alt(seq(star(chars("a")), chars("b")), star(alt(chars("a"), chars("c")))), "a*b|(a|c)*"),
    (seq(star(alt(text("ab"), text("a"))), chars("b")), "(ab|a)*b"),
]


@pytest.mark.exercise("regular.derivative")
@pytest.mark.parametrize(("ours", "pattern"), CASES, ids=[pattern for _, pattern in CASES])
def test_derivatives_match_what_the_library_matches(ours: Regex, pattern: str) -> None:
    compiled = regex.compile(pattern)
    for length in range(6):
        for letters in itertools.product("abc", repeat=length):
            word = "".join(letters)
            assert matches(ours, word) == bool(compiled.fullmatch(word)), word
            rest = ours
            for c in word:
                rest = derivative(rest, c)
            if length and not compiled.fullmatch(word, partial=True):
                assert rest == NOTHING, "no way out is seen as soon as it arises"


@pytest.mark.exercise("regular.derivative")
def test_derivatives_are_simplified_so_that_they_are_few() -> None:
    a, b = chars("a"), chars("b")
    assert derivative(seq(a, b), "a") == b
    assert derivative(a, "a") == EMPTY
    assert derivative(star(a), "a") == star(a)
    assert isinstance(derivative(star(a), "a"), Star)
    for dead in (EMPTY, NOTHING, a, star(a), seq(a, b), alt(a, seq(a, b))):
        assert derivative(dead, "b") == NOTHING
    assert derivative(other_than("a"), "b") == EMPTY
    assert derivative(other_than("a"), "a") == NOTHING
    assert derivative(alt(seq(a, b), seq(a, a)), "a") == alt(b, a)


PIECES = ["", "a", "b", "c", "ab", "ba", "cab", "bb", "aa"]
END = 0


def possible(pattern: regex.Pattern, written: str, left: int) -> bool:
    """Whether some row of at most `left` tokens makes `written` a match, by trying them all."""
    if compiled_full(pattern, written):
        return True
    if left == 0 or not (written == "" or pattern.fullmatch(written, partial=True)):
        return False
    return any(possible(pattern, written + piece, left - 1) for piece in PIECES[1:])


def compiled_full(pattern: regex.Pattern, written: str) -> bool:
    return pattern.fullmatch(written) is not None


@pytest.mark.exercise("grammar.allowed")
@pytest.mark.exercise("regular.derivative")
@pytest.mark.parametrize(
    "case", [CASES[0], CASES[1], CASES[4], CASES[7], CASES[9]], ids=lambda case: case[1]
)
def test_masks_allow_exactly_what_can_still_end_in_time(case: tuple[Regex, str]) -> None:
    ours, pattern = case
    compiled = regex.compile(pattern)
    automaton = Automaton(ours, PIECES, END)
    states = {"": 0}
    for left in (4, 3, 2, 1):
        following = {}
        rows = torch.tensor(list(states.values()))
        mask = allowed(automaton.next_state, automaton.distance, rows, left)
        assert mask.dtype == torch.bool
        assert mask.shape == (len(states), len(PIECES))
        for row, (written, state) in zip(mask.tolist(), states.items(), strict=True):
            for token, piece in enumerate(PIECES):
                if token == END:
                    wanted = compiled_full(compiled, written)
                else:  # left - 1 more tokens, of which END is one
                    wanted = left >= 2 and possible(compiled, written + piece, left - 2)
                assert row[token] == wanted, (written, piece, left)
                if token != END and automaton.next_state[state, token] != DEAD:
                    following[written + piece] = int(automaton.next_state[state, token])
        states = dict(itertools.islice(following.items(), 12))
        if not states:
            break


@pytest.mark.exercise("grammar.allowed")
def test_the_mask_looks_at_the_next_state_and_each_row_by_itself() -> None:
    next_state = torch.tensor([[1, 2, DEAD], [3, DEAD, 3], [2, 1, DEAD], [DEAD, DEAD, 3]])
    distance = torch.tensor([2, 1, 2, 0])
    kept = next_state.clone(), distance.clone()
    mask = allowed(next_state, distance, torch.tensor([0, 1, 2, 0]), 2)
    assert mask.tolist() == [
        [True, False, False],
        [True, False, True],
        [False, True, False],
        [True, False, False],
    ]
    assert allowed(next_state, distance, torch.tensor([0]), 3).tolist() == [[True, True, False]]
    assert allowed(next_state, distance, torch.tensor([1]), 1).tolist() == [[True, False, True]]
    assert allowed(next_state, distance, torch.tensor([0]), 1).tolist() == [[False] * 3]
    assert allowed(next_state, distance, torch.empty(0, dtype=torch.int64), 1).shape == (0, 3)
    assert torch.equal(next_state, kept[0])
    assert torch.equal(distance, kept[1])
    far = torch.tensor([2, 1, FAR, 0])
    assert allowed(next_state, far, torch.tensor([0]), 9).tolist() == [[True, False, False]]
    # the last state is not taken for DEAD, although index -1 is its distance
    assert allowed(next_state, distance, torch.tensor([3]), 5).tolist() == [[False, False, True]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_random_models_write_well_formed_steps_only(temperature: float) -> None:
    """Logits that know nothing, and ask for digits for ever: every step is well-formed and ends."""
    pieces = ["", *"\n 0123456789+-*/().%[]", "\nThought: ", "\nAction: ", "calculate[", "search[",
              "finish[", "delete[", "Ob", "servation:", "x"]  # fmt: skip
    automaton = Automaton(react_step(["calculate", "search"]), pieces, 0)
    pattern = regex.compile(
        r"\nThought: [^\n]*\nAction: (calculate\[[-+*/().%0-9]+\]|(search|finish)\[[^\n\[\]]+\])"
    )
    generator = torch.Generator().manual_seed(0)
    rows, count = 60, 30
    chooser = Constrained(automaton, rows, count, temperature, generator)
    bias = torch.zeros(len(pieces))
    bias[3:13] = 2.0  # digits
    bias[pieces.index("delete[")] = 4.0
    written = [""] * rows
    for _ in range(count):
        logits = torch.randn(rows, len(pieces), generator=generator) + bias
        token = chooser(logits)
        assert token.shape == (rows, 1)
        written = [w + pieces[t] for w, t in zip(written, token[:, 0].tolist(), strict=True)]
    assert (chooser.state == len(automaton.next_state) - 1).all(), "every row has ended"
    for one in written:
        assert pattern.fullmatch(one), one
        if "calculate[" in one:
            with contextlib.suppress(CalculatorError):  # 1/0 and the like, but no other exception
                evaluate(one.rpartition("calculate[")[2][:-1])
    assert len(set(written)) > rows / 2


def test_the_grammar_of_expressions_is_what_the_calculator_reads() -> None:
    ours = arithmetic(2)
    for good in ("1", "12.5", "-3", "2*(3+4)", "((1))", "2**-3", "15%", "1+-2*(3-(4))/5"):
        assert matches(ours, good), good
        evaluate(good)
    for bad in ("", "1+", "(1", "1)", "(((1)))", "1..2", "a", "1 + 2", "*2", ".5"):
        assert not matches(ours, bad), bad


def test_what_cannot_match_is_refused() -> None:
    with pytest.raises(ValueError, match="no text of this vocabulary matches"):
        Automaton(text("xyz"), PIECES, END)
    automaton = Automaton(text("abcab"), PIECES, END)
    assert automaton.shortest == 3  # ab, cab, end
    with pytest.raises(ValueError, match=r"2 tokens are too few: .* has 3"):
        Constrained(automaton, 1, 2)


def test_random_regexes_agree_with_the_library() -> None:
    rng = random.Random(1)

    def draw(depth: int) -> tuple[Regex, str]:
        kind = rng.randrange(5 if depth else 1)
        if kind == 0:
            c = rng.choice("abc")
            return chars(c), c
        one, first = draw(depth - 1)
        if kind == 1:
            return star(one), f"(?:{first})*"
        other, second = draw(depth - 1)
        if kind == 2:
            return alt(one, other), f"(?:{first}|{second})"
        return seq(one, other), f"{first}{second}"

    for _ in range(150):
        ours, pattern = draw(3)
        compiled = regex.compile(pattern)
        for _ in range(25):
            word = "".join(rng.choice("abc") for _ in range(rng.randrange(7)))
            assert matches(ours, word) == bool(compiled.fullmatch(word)), (pattern, word)
