"""Mutants: do the tests of an exercise notice small mistakes that are made automatically?

    lab exercise mutants attention                       all exercises of the week
    lab exercise mutants attention causal_mask           one
    lab exercise mutants attention --list                show them, run nothing

Each exercise's syntax tree is changed in one place (see operators.py) and the tests that are
marked for the exercise run on the result; a mutant is killed when one of them fails. A mutant
survives when a test is missing or when it computes the same. Mutants of the second kind are
reviewed by a person and listed in tests/<week>/equivalent.yaml, each with its reason:

    attention.causal_mask:
      - id: 3f9a2c1b                # as the command prints it
        reason: keys is an int, so // and / differ for no legal input
      - old: "x = y + 1"            # or the line and what became of it
        new: "x = 1 + y"
        reason: addition commutes
      - operator: gradient lost     # or all of one operator
        reason: the function computes a gradient itself and none flows through it

The figure is killed / (all - equivalent); below 99 % the command fails.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from labkit import surgery
from labkit.exercises.mutants.operators import Mutator

MOST = 60
"""Mutants of one exercise that are tried; of more, every operator gives some."""

Entry = dict[str, str]


@dataclass(frozen=True)
class Mutant:
    """One change of one exercise. `id` depends on the changed lines, not on their position."""

    exercise: str
    operator: str
    line: int
    old: str
    new: str
    source: str = field(repr=False)
    """The whole text of the file with the change."""
    number: int = 0
    """Distinguishes equal changes of equal lines."""

    @property
    def id(self) -> str:
        parts = [self.exercise, self.operator, self.old, self.new, str(self.number)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]

    @property
    def diff(self) -> str:
        return f"{self.old or '(nothing)'}  ->  {self.new or '(nothing)'}"


def generate(source: str, function: str, exercise: str) -> list[Mutant]:
    """All mutants of `function` that are valid and different Python, in the order of the lines."""
    seen, found = {_tree(source, function)}, []
    data, numbers = source.encode(), Counter[tuple[str, str, str]]()
    for operator, start, end, text in Mutator(source, function).edits():
        changed = (data[:start] + text.encode() + data[end:]).decode()
        with contextlib.suppress(SyntaxError, ValueError):
            tree = _tree(changed, function)
            if tree in seen:
                continue
            seen.add(tree)
            line, old, new = _difference(source, changed)
            key = operator, old, new
            found.append(Mutant(exercise, operator, line, old, new, changed, numbers[key]))
            numbers[key] += 1
    return sorted(found, key=lambda mutant: (mutant.line, mutant.operator, mutant.new))


def _tree(source: str, function: str) -> str:
    """The function's syntax tree as text. Raises SyntaxError for what does not compile."""
    tree = ast.parse(source)
    compile(tree, "<mutant>", "exec", dont_inherit=True)  # sees more than the parser does
    return ast.dump(surgery.functions(tree)[function])


def sample(mutants: list[Mutant], most: int = MOST) -> list[Mutant]:
    """At most so many: one of each operator in turn, those with the smallest ids first."""
    if len(mutants) <= most:
        return mutants
    kinds: dict[str, list[Mutant]] = {}
    for mutant in sorted(mutants, key=lambda mutant: mutant.id):
        kinds.setdefault(mutant.operator, []).append(mutant)
    kept: list[Mutant] = []
    for place in range(max(map(len, kinds.values()))):
        kept += [kind[place] for _, kind in sorted(kinds.items()) if place < len(kind)]
    chosen = {mutant.id for mutant in kept[:most]}
    return [mutant for mutant in mutants if mutant.id in chosen]


def excused(mutant: Mutant, entries: Iterable[Entry]) -> Entry | None:
    """The entry of equivalent.yaml for this mutant."""
    for entry in entries:
        keys = entry.keys() - {"reason"}
        if keys and all(_squeeze(entry[key]) == getattr(mutant, key) for key in keys):
            return entry
    return None


def wrong_entry(entry: object) -> str:
    """Why this is not an entry of equivalent.yaml; empty when it is one."""
    if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
        return "it must map keys to text (put an id that looks like a number in quotes)"
    keys = set(entry) - {"reason"}
    if not keys or keys - {"id", "operator", "old", "new"} or "reason" not in entry:
        return "it needs a reason, and id or old and new or operator (or several of them)"
    return "" if len(entry["reason"].split()) > 2 else "give the reason in words"


def _difference(source: str, changed: str) -> tuple[int, str, str]:
    """Number of the first changed line, and the changed lines of both, each as one line."""
    old, new = surgery.lines_of(source), surgery.lines_of(changed)
    same = [a == b for a, b in zip(old, new, strict=False)]
    first = [*same, False].index(False)
    same = [a == b for a, b in zip(old[first:][::-1], new[first:][::-1], strict=False)]
    last = [*same, False].index(False)
    lines = old[first : len(old) - last], new[first : len(new) - last]
    return first + 1, _squeeze(" ".join(lines[0])), _squeeze(" ".join(lines[1]))


def _squeeze(text: str) -> str:
    return " ".join(text.split())
