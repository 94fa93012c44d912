"""Regular expressions as values, and their derivatives.

The derivative of an expression by a character c matches what must follow after c (Brzozowski 1964).
With `seq` and `alt`, which simplify, an expression has finitely many derivatives: they are the
states of an automaton (grammar.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit import exercise


class Regex:
    """A regular expression: one of the kinds below."""


@dataclass(frozen=True)
class Nothing(Regex):
    """Matches no text at all."""


@dataclass(frozen=True)
class Empty(Regex):
    """Matches the empty text only."""


@dataclass(frozen=True)
class Chars(Regex):
    """One character of a set, or, negated, any character outside of it."""

    members: frozenset[str]
    negated: bool = False


@dataclass(frozen=True)
class Seq(Regex):
    """First one, then the other."""

    first: Regex
    second: Regex


@dataclass(frozen=True)
class Alt(Regex):
    """Any of several."""

    options: frozenset[Regex]


@dataclass(frozen=True)
class Star(Regex):
    """Any number of times, also none."""

    inner: Regex


NOTHING, EMPTY = Nothing(), Empty()


def seq(*parts: Regex) -> Regex:
    """Parts one after the other, simplified."""
    result: Regex = EMPTY
    for part in reversed(parts):
        result = join(part, result)
    return result


def join(first: Regex, rest: Regex) -> Regex:
    """Two parts; always nested to the right, so that equal ones are equal."""
    if NOTHING in (first, rest):
        return NOTHING
    if first == EMPTY or rest == EMPTY:
        return rest if first == EMPTY else first
    if isinstance(first, Seq):
        return join(first.first, join(first.second, rest))
    return Seq(first, rest)


def alt(*options: Regex) -> Regex:
    """Any of the options, simplified: without it the derivatives would not be finitely many."""
    found: set[Regex] = set()
    for option in options:
        found |= option.options if isinstance(option, Alt) else {option}
    found.discard(NOTHING)
    if not found:
        return NOTHING
    return found.pop() if len(found) == 1 else Alt(frozenset(found))


def star(inner: Regex) -> Regex:
    """Any number of times."""
    return inner if isinstance(inner, Star) else Star(inner)


def plus(inner: Regex) -> Regex:
    """Once or more."""
    return seq(inner, star(inner))


def maybe(inner: Regex) -> Regex:
    """Once or not at all."""
    return alt(EMPTY, inner)


def chars(members: str) -> Regex:
    """One of these characters."""
    return Chars(frozenset(members))


def other_than(members: str) -> Regex:
    """One character that is none of these."""
    return Chars(frozenset(members), negated=True)


def text(literal: str) -> Regex:
    """Exactly this text."""
    return seq(*(chars(c) for c in literal))


def nullable(r: Regex) -> bool:
    """Whether `r` matches the empty text."""
    if isinstance(r, Seq):
        return nullable(r.first) and nullable(r.second)
    if isinstance(r, Alt):
        return any(nullable(option) for option in r.options)
    return isinstance(r, Empty | Star)


@exercise(minutes=25)
def derivative(r: Regex, c: str) -> Regex:
    """What a text must match after the character c, for c and that text together to match `r`.

    Brzozowski 1964, Theorem 3.1, for each kind of `r`:

    - Chars: EMPTY when c is in the set (negated: when it is not), else NOTHING;
    - Seq: the derivative of the first part, then the second. If the first part can be empty
      (`nullable`), c may also begin the second part;
    - Alt: any of the options' derivatives;
    - Star: the derivative of what is repeated, then the star again;
    - Nothing and Empty: NOTHING.

    Build results with `seq` and `alt`, which simplify.
    """
    if isinstance(r, Chars):
        return EMPTY if (c in r.members) != r.negated else NOTHING
    if isinstance(r, Seq):
        rest = seq(derivative(r.first, c), r.second)
        return alt(rest, derivative(r.second, c)) if nullable(r.first) else rest
    if isinstance(r, Alt):
        return alt(*(derivative(option, c) for option in r.options))
    if isinstance(r, Star):
        return seq(derivative(r.inner, c), r)
    return NOTHING


def matches(r: Regex, whole: str) -> bool:
    """Whether `r` matches a whole text."""
    for c in whole:
        r = derivative(r, c)
    return nullable(r)
