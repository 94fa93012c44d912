"""Mutants: what is made of a function, and what the command says of a toy week."""

import ast
from pathlib import Path

import pytest

from labkit.cli import main
from labkit.errors import UsageError
from labkit.exercises.mutants.command import mutants
from labkit.exercises.mutants.make import excused, generate, sample, wrong_entry
from tests.labkit.exercise_lab import Lab

KINDS = {  # a function's arguments and statement: what must be made of that statement
    "comparison": ("a, b: return a <= b", ["return a < b", "return a > b"]),
    "comparison of identity": ("a, b: return a is not b", ["return a is b"]),
    "arithmetic": ("a, b: return a + b", ["return (a - b)", "return a", "return b"]),
    "arithmetic keeps its place": ("a, b: return a / b**2", ["return a / (b * 2)"]),
    "power": ("a: return a ** 0.5", ["return (a * 0.5)", "return a ** -0.5"]),
    "integer": ("a: return f(3, a)", ["return f(2, a)", "return f(4, a)"]),
    "float": ("a: return g(0.0, 1e-9)", ["return g(1.0, 1e-9)", "return g(0.0, 0.0)"]),
    "boolean": ("a: return a.sum(keepdim=True)", ["return a.sum(keepdim=False)"]),
    "dimension": ("a: return a.sum(dim=-1)", ["return a.sum(dim=-2)", "return a.sum(dim=0)"]),
    "function": ("a: return a.sum(dim=-1)", ["return a.mean(dim=-1)"]),
    "builtin": ("a, b: return max(a, b)", ["return min(a, b)", "return a", "return b"]),
    "keyword dropped": ("a: return f(a, k=1, m=2)", ["return f(a, m=2)", "return f(a, k=1)"]),
    "first keyword dropped": ("a: return f(k=1, m=2)", ["return f(m=2)", "return f(k=1)"]),
    "and or": ("a, b: return a and b", ["return (a or b)", "return a", "return b"]),
    "condition": ("a, b: return a if b else 1", ["return a if True else 1"]),
    "negation": ("a: return not a", ["return a"]),
    "sign": ("a: return -a.log()", ["return a.log()", "return -a", "return -a.log1p()"]),
    "mask": ("a: return ~a", ["return a"]),
    "slice": ("a: return a[1:-1]", ["return a[2:-1]", "return a[1:-2]", "return a[1:]"]),
    "open slices": ("a: return a[:5], a[2:]", ["return a[1:5], a[2:]", "return a[:5], a[2:-1]"]),
    "argument exchanged": ("a, b: return f(a)", ["return f(b)"]),
    "argument ignored": ("a, b=2: return f(b)", ["b = 2"]),
    "default": ("a, b=2: return f(b)", ["def f(a, b=3):"]),
    "gradient kept": ("a: return a.detach() + 1", ["return a + 1"]),
    "gradient lost": ("a: Tensor: return -a", ["return (-a).detach()", "a = a.detach()"]),
    "copy": ("a: return a.copy()", ["return a"]),
    "in place": ("a: a = a * 2; return a", ["a *= 2; return a"]),
    "in place by name": ("a: return a.clamp(0)", ["return a.clamp_(0)"]),
    "not in place": ("a: a += 2", ["a = a + 2", "a -= 2", "pass"]),
    "guard": ("a: \n    if a < 0: raise ValueError('no')", ["if False: raise ValueError('no')"]),
    "call for effect": ("a: a.clamp_(0, 1)", ["pass"]),
    "assignment into": ("a: a[0] = 2", ["pass", "a[1] = 2"]),
    "results": ("a, b: return a, b", ["return b, a"]),
    "range": ("a: return range(a)", ["return range(a - 1)", "return range(1, a)"]),
    "text": ('a: return f"{a}\\n"', ['return f"\\n"', 'return f"{a}"']),
    "operands": ("a, b: return a @ b", ["return (b @ a)"]),
}


def source_of(text: str) -> str:
    arguments, _, body = text.rpartition(": ") if "\n" not in text else text.partition(": ")
    returns = " -> Tensor" if "Tensor" in arguments else ""
    return f"import torch\n\n\ndef f({arguments}){returns}:\n    {body.strip()}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_operators(kind: str):
    text, expected = KINDS[kind]
    source = source_of(text)
    made = generate(source, "f", "module.f")
    new = {mutant.new for mutant in made}
    assert not set(expected) - new, f"missing from {sorted(new)}"
    for mutant in made:
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(source))
        before, after = source.splitlines(), mutant.source.splitlines()
        added = len(after) - len(before)
        at = mutant.line - 1
        assert before[:at] == after[:at]  # the rest stays byte for byte
        assert before[at + 1 :][-1:] == after[at + 1 + added :][-1:]


LONG = '''\
def other():
    return 1


def f(x, eps=1e-6):
    """Adds 1 < 2.

    Raises ValueError for x < 0.
    """
    if x < 0:
        raise ValueError(f"{x + 1} < 0, and 3")
    assert x < 5, f"{x + 2} is too large"
    warnings.warn(f"{x - 3} is odd")
    return x / (1 + eps)
'''


def test_docstrings_and_messages_are_left_alone():
    for mutant in generate(LONG, "f", "module.f"):
        for text in ("Adds 1 < 2.", 'f"{x + 1} < 0, and 3"', 'f"{x + 2} is', "def other():\n    r"):
            assert text in mutant.source


def test_an_id_survives_changes_elsewhere():
    ids = {mutant.id for mutant in generate(LONG, "f", "module.f")}
    moved = LONG.replace("def other", "y = 2\n\n\ndef other").replace("if x < 0:", "if x <= 0:")
    after = {mutant.id for mutant in generate(moved, "f", "module.f")}
    assert len(ids) > 15
    assert len(ids - after) == sum("if x < 0" in m.old for m in generate(LONG, "f", "module.f"))


def test_equal_changes_of_equal_lines_have_ids_of_their_own():
    made = generate("def f(a):\n    g(a)\n    g(a)\n", "f", "module.f")
    assert len({mutant.id for mutant in made}) == len(made) > 1


def test_a_sample_holds_some_of_every_operator():
    lines = "".join(f"    x = x * {n} + y[{n}:]\n" for n in range(2, 30))
    every = generate(f"def f(x, y):\n{lines}    return x\n", "f", "module.f")
    some = sample(every, 40)
    assert len(some) == 40
    assert {mutant.operator for mutant in some} == {mutant.operator for mutant in every}
    assert sample(every[::-1], 40)[::-1] == some


def test_entries_of_the_list_of_equivalent_mutants():
    mutant = generate("def f(a, b):\n    return a + b\n", "f", "module.f")[0]
    texts = {"old": mutant.old, "new": mutant.new}
    for entry in ({"id": mutant.id}, texts, {"id": mutant.id, **texts}):
        assert excused(mutant, [entry | {"reason": "the same for all numbers"}])
        assert not wrong_entry(entry | {"reason": "the same for all numbers"})
        assert "reason" in wrong_entry(entry)
        assert "in words" in wrong_entry(entry | {"reason": "equal"})
    assert not excused(mutant, [texts | {"new": "return b", "reason": "no reason at all"}])
    assert "quotes" in wrong_entry({"id": 12345678, "reason": "a number is no id"})


@pytest.fixture
def toy(tmp_path: Path) -> Lab:
    return Lab(tmp_path.resolve())


def test_mutants_names_what_survives_and_excuses_what_is_equivalent(
    toy: Lab, capsys: pytest.CaptureFixture[str]
):
    toy.edit("tests/toy/test_stats.py", "[[1.0, 2.0, 6.0], [2.0, 4.0]]", "[[3.0]]")
    assert mutants(["toy"], root=toy.root) == 1
    first = capsys.readouterr().out
    survivors = [line for line in first.splitlines() if "survives" in line]
    assert any("return total / len(x)  ->  return total" in line for line in survivors)
    assert all("toy/stats.py:10 " in line for line in survivors), "only of mean, which is weak now"
    assert "toy/stats.py:9 " not in first, "sum is not left out unseen"
    entries = "".join(
        f"  - id: '{line.split()[1]}'\n    reason: taken as equivalent in this test\n"
        for line in survivors
    )
    toy.write("tests/toy/equivalent.yaml", f"stats.mean:\n{entries}")
    assert mutants(["toy"], root=toy.root) == 0
    second = capsys.readouterr().out
    assert "100.0 %" in second
    assert "from the cache" in second
    toy.edit("toy/stats.py", "return total / len(x)", "return (total) / len(x)")
    assert mutants(["toy"], "mean", root=toy.root) == 1
    assert "FAULT equivalent.yaml lists what is not a mutant" in capsys.readouterr().out


def test_mutants_that_only_the_time_limit_ends_are_told_apart(
    toy: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("labkit.exercises.mutants.command.SECONDS", 1.0)
    toy.edit(
        "toy/stats.py", "    total = sum(x)\n", "    total = sum(x)\n    while x is None: pass\n"
    )
    mutants(["toy"], "mean", root=toy.root)
    printed = capsys.readouterr().out
    assert "only by the time limit" in printed
    assert "while x is not None: pass" in printed


def test_mutants_means_nothing_where_the_solution_fails(
    toy: Lab, capsys: pytest.CaptureFixture[str]
):
    toy.edit("toy/stats.py", "return total / len(x)", "return total / len(x) + 1")
    assert mutants(["toy"], "mean", root=toy.root) == 1
    printed = capsys.readouterr().out
    assert "FAULT the solution does not pass: test_mean[x0]" in printed
    assert "0 of 0 mutants killed" in printed


def test_mutants_lists_without_running(toy: Lab, capsys: pytest.CaptureFixture[str]):
    toy.edit("toy/__init__.py", '"""A week."""', "raise RuntimeError")
    assert mutants(["toy"], "update", listed=True, root=toy.root) == 0
    assert "self.count += 1  ->  self.count -= 1" in capsys.readouterr().out


def test_equivalents_that_are_malformed_are_refused(toy: Lab):
    toy.write("tests/toy/equivalent.yaml", "stats.mean:\n  - id: abc\n")
    with pytest.raises(UsageError, match=r"equivalent\.yaml: stats\.mean: .*reason"):
        mutants(["toy"], root=toy.root)
    toy.write("tests/toy/equivalent.yaml", "stats.mean:\n  - reason: a: b\n")
    with pytest.raises(UsageError, match=r"equivalent\.yaml cannot be read: "):
        mutants(["toy"], root=toy.root)


def test_the_command_takes_weeks_or_a_week_and_an_exercise(capsys: pytest.CaptureFixture[str]):
    assert main(["exercise", "mutants", "attention", "causal_mask", "--list"]) == 0
    alone = capsys.readouterr().out
    assert "attention/attention.py" in alone
    assert main(["exercise", "mutants", "attention", "alignment", "--list"]) == 0
    both = capsys.readouterr().out
    assert "attention/attention.py" in both
    assert "alignment/lora.py" in both
    assert main(["exercise", "mutants", "attention", "no_such", "--list"]) == 2
    assert "there is no exercise 'no_such'" in capsys.readouterr().err
    assert main(["exercise", "verify", "--frehs"]) == 2
