"""The exercise system, on a made-up lab of one week."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import surgery
from labkit.errors import UsageError
from labkit.exercises.listing import list_exercises
from labkit.exercises.mark import exercise
from labkit.exercises.mutants.command import mutants
from labkit.exercises.start import start
from labkit.surgery import blank
from tests.labkit.exercise_lab import STATS, TESTS, Lab

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def toy(tmp_path: Path) -> Lab:
    return Lab(tmp_path.resolve())


# ---- marking and listing


def test_exercise_returns_the_function_itself():
    def double(x: int) -> int:
        return 2 * x

    assert exercise(minutes=5)(double) is double
    assert double.__exercise__ == 5


def test_exercise_without_minutes_is_refused():
    with pytest.raises(TypeError, match="minutes"):

        @exercise
        def forgotten() -> None: ...


def test_list_exercises_reads_without_importing(toy: Lab):
    toy.edit("toy/__init__.py", '"""A week."""', 'raise RuntimeError("imported")')
    found = list_exercises(toy.root / "toy")
    assert [(e.name, e.minutes, e.summary) for e in found] == [
        ("stats.mean", 5, "The arithmetic mean: sum(x) / len(x)."),
        ("stats.Running.update", 10, "Welford's update of the mean. Returns it."),
    ]
    for e in found:
        line = e.file.read_text().splitlines()[e.line - 1]
        assert line.strip().startswith(f"def {e.function.rpartition('.')[2]}(")


# ---- blanks

SHAPES = {  # each after its `@exercise(5)`, unless it brings one
    "plain": "def f(x):\n    return x\n",
    "docstring": 'def f(x):\n    """Doc."""\n    y = x\n    return y\n',
    "only a docstring": 'def f(x):\n    """Doc."""\n',
    "docstring, comment behind it": 'def f(x):\n    """Doc."""  # noqa\n    return x\n',
    "docstring of lines": 'def f(x):\n    """Doc.\n\n    x: (T, C)\n    """\n\n    return x\n',
    "docstring in bytes": 'def f(x):\n    """α ≤ β."""; return "é" + x\n',
    "one line": "def f(x): return x\n",
    "one line, comment": "def f(x): return x  # trivial\n\ny = f(1)\n",
    "one line, docstring": 'def f(x): """Doc."""; return x\n',
    "one line, only a docstring": 'def f(x): """Doc."""\n',
    "semicolons": "def f(x):\n    x += 1; return x;\n",
    "long signature": (
        "def f(\n    x,  # (T, C)\n    # the rest\n    *,\n    y=(1,\n       2),\n"
        ") -> 'Float[T, \"a b\"]':  # (T,)\n    # look away\n\n    return x  # done\n\nz = 1\n"
    ),
    "long signature, one line": "def f(\n    x,\n): return (x,\n   1)\nz = 1\n",
    "line continued": "def f(x): \\\n    return x\nz = 1\n",
    "async": "async def f(x):\n    await x\n    return x\n",
    "generator": "def f(x):\n    yield from x\n",
    "other decorators": "@cache\n@exercise(minutes=5)\n@wraps(g)\ndef f(x):\n    return x\n",
    "attribute": "@labkit.exercise(minutes=5)\ndef f(x):\n    return x\n",
    "inner function first": (
        "def f(x):\n    @cache\n    def g(y):\n        return y\n    return g(x)\n"
    ),
    "closing comments": (
        "def f(x):\n    return x\n    # inside\n\n    # inside too\n\n# outside\nz = 1\n"
    ),
    "end of file": "def f(x):\n    return x",
    "windows": 'def f(x):\r\n    """Doc."""\r\n    return x\r\n\r\nz = 1\r\n',
    "tabs": "def f(x):\n\tif x:\n\t\treturn x\n\n\ty = 1\n\treturn y\n",
    "form feed": "def f(x):\n    s = 'a\x0cb'\n    return x\n\x0c\nz = 1\n",
    "text that looks like code": "def f(x):\n    s = '''\n# no comment\n'''\n    return s\n",
    "method": (
        "class A:\n    @exercise(5)\n    def f(self):\n        return 1\n\n    # outside\n    y = 1"
    ),
    "static method": (
        "class A:\n    @staticmethod\n    @exercise(5)\n    def f():\n        return 1\n"
    ),
    "nested class": (
        "class A:\n    class B:\n        @exercise(5)\n        def f(self): return 1\n    z = 2\n"
    ),
}
SHAPES = {
    name: source
    if "exercise(" in source
    else "@exercise(5)" + ("\r\n" if "\r" in source else "\n") + source
    for name, source in SHAPES.items()
}


def without_bodies(source: str, name: str) -> str:
    """The syntax tree, with the body of `name` (its docstring apart) left out."""
    tree = ast.parse(source)
    (node,) = [n for n in ast.walk(tree) if getattr(n, "name", "") == name.rpartition(".")[2]]
    node.body = [s for s in node.body[:1] if ast.get_docstring(node, clean=False) is not None]
    return ast.dump(tree)


@pytest.mark.parametrize("shape", SHAPES)
def test_blank_removes_the_body_and_nothing_else(shape: str):
    source = SHAPES[shape]
    (name,) = surgery.exercises(source)
    empty = blank(source, [name], "module")
    node = surgery.functions(empty)[name]
    assert surgery.is_blank(node)
    assert not surgery.is_blank(surgery.functions(source)[name])
    assert without_bodies(empty, name) == without_bodies(source, name)
    assert f'raise NotImplementedError("exercise: module.{name}")' in empty
    if shape == "windows":
        assert "\n" not in empty.replace("\r\n", "")
    # Byte for byte outside the body: the text before it and the text after it are the source's own.
    before, _, after = empty.partition('raise NotImplementedError("exercise: ')
    head = before.rstrip(" \t\r\n").removesuffix(";")
    assert source.startswith(head)
    assert source.endswith(after.partition('")')[2])
    assert blank(empty, [name], "module") == empty


def test_blank_keeps_comments_outside_and_drops_those_inside():
    assert "outside" in blank(SHAPES["closing comments"], ["f"])
    assert "inside" not in blank(SHAPES["closing comments"], ["f"])
    long = blank(SHAPES["long signature"], ["f"])
    assert "look away" not in long
    assert "done" not in long
    assert "# the rest" in long
    assert "# (T,)" in long


def test_blank_of_real_code_leaves_the_rest():
    """The same property on labkit itself: mark each function in turn and take its body out."""
    for file in ("surgery.py", "exercises/check.py", "exercises/grader.py"):
        source = surgery.read(REPOSITORY / "labkit" / file)
        for name, node in surgery.functions(source).items():
            lines = source.splitlines(keepends=True)
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            lines.insert(first, " " * node.col_offset + "@exercise(minutes=1)\n")
            marked = "".join(lines)
            empty = blank(marked, [name])
            assert surgery.is_blank(surgery.functions(empty)[name]), f"{file}: {name}"
            outside = [n for n in surgery.functions(marked) if n != name]
            assert [n for n in surgery.functions(empty) if n != name] == outside
            assert empty.startswith("".join(lines[:first]))


def test_blank_takes_out_only_what_is_named():
    empty = blank(STATS, ["mean"], "stats")
    assert surgery.is_blank(surgery.functions(empty)["mean"])
    assert not surgery.is_blank(surgery.functions(empty)["Running.update"])


def test_blank_refuses_a_name_that_is_no_exercise():
    with pytest.raises(ValueError, match=r"Running\.__init__"):
        blank(STATS, ["mean", "Running.__init__"])


# ---- start


def test_start_copies_the_week_without_its_solutions(toy: Lab, capsys: pytest.CaptureFixture[str]):
    assert toy.start() == 0
    functions = surgery.functions(toy.own.joinpath("stats.py").read_text())
    assert all(surgery.is_blank(functions[name]) for name in ("mean", "Running.update"))
    assert toy.root.joinpath("toy/stats.py").read_text() == STATS
    printed = capsys.readouterr().out
    assert "workspace/toy/stats.py:7" in printed
    assert "lab exercise check toy" in printed
    assert os.listdir(toy.own.parent) == ["toy"]


def test_start_never_overwrites_a_learners_work(toy: Lab):
    toy.start()
    toy.solve(text="# mine\n")
    with pytest.raises(UsageError, match="lab exercise start toy --force"):
        toy.start()
    assert toy.own.joinpath("stats.py").read_text() == "# mine\n"


def test_start_with_force_moves_the_old_work_aside(toy: Lab):
    toy.start()
    for text in ("# mine\n", "# mine again\n"):
        toy.solve(text=text)
        toy.start(force=True)
        assert "NotImplementedError" in toy.own.joinpath("stats.py").read_text()
    kept = [f.joinpath("stats.py").read_text() for f in toy.own.parent.glob("toy.bak-*")]
    assert sorted(kept) == ["# mine\n", "# mine again\n"]


def test_unknown_week_names_the_nearest(toy: Lab):
    with pytest.raises(UsageError, match="did you mean toy"):
        start("toi", root=toy.root, workspace=toy.own.parent)


# ---- check


def test_check_passes_the_solution(toy: Lab, capsys: pytest.CaptureFixture[str]):
    toy.start()
    toy.solve()
    assert toy.check() == 0
    assert "2 of 2 passed" in capsys.readouterr().out


def test_check_tells_passed_failed_and_not_started(toy: Lab, capsys: pytest.CaptureFixture[str]):
    toy.start()
    assert toy.check() == 1
    assert capsys.readouterr().out.count("not started") == 2
    wrong = STATS.replace("total / len(x)", "total / len(x) + 1")
    toy.solve(text=blank(wrong, ["Running.update"], "stats"))
    assert toy.check() == 1
    printed = capsys.readouterr().out
    assert "not started  stats.Running.update" in printed
    assert "about 10 min" in printed
    assert "failed       stats.mean" in printed
    assert "0 of 2 tests" in printed
    assert "assert 4.0 == 3.0" in printed
    assert "tests/toy/test_stats.py:9" in printed


def test_check_of_one_exercise_ignores_the_others(toy: Lab, capsys: pytest.CaptureFixture[str]):
    toy.start()
    capsys.readouterr()
    toy.solve(text=blank(STATS, ["Running.update"], "stats"))
    assert toy.check("stats.mean") == 0
    assert toy.check("mean") == 0
    assert "update" not in capsys.readouterr().out
    assert toy.check("update") == 1
    with pytest.raises(UsageError, match="no exercise 'median'"):
        toy.check("median")


def test_check_before_start_says_what_to_type(toy: Lab):
    with pytest.raises(UsageError, match="lab exercise start toy"):
        toy.check()


def test_check_grades_the_learners_files_and_not_the_solution(
    toy: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Every trap at once: the solution is first on the search path, also by pytest's own doing."""
    toy.write("pyproject.toml", '[tool.pytest.ini_options]\npythonpath = ["."]\n')
    monkeypatch.syspath_prepend(str(toy.root))
    monkeypatch.setenv("PYTHONPATH", str(toy.root))
    monkeypatch.chdir(toy.root)
    toy.start()
    toy.solve(text=STATS.replace("total / len(x)", "-1.0"))
    assert toy.check() == 1
    assert "assert -1.0 == 3.0" in capsys.readouterr().out


def test_check_notices_tests_that_load_the_solution(toy: Lab, capsys: pytest.CaptureFixture[str]):
    load = (
        "import importlib.util, sys, pathlib\n"
        "file = pathlib.Path(__file__).parents[2] / 'toy' / 'stats.py'\n"
        "spec = importlib.util.spec_from_file_location('toy.stats', file)\n"
        "sys.modules['toy.stats'] = stats = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(stats)\n"
    )
    toy.write("tests/toy/test_stats.py", load + TESTS)
    toy.start()
    toy.solve(text=STATS.replace("total / len(x)", "-1.0"))
    assert toy.check() == 1
    assert "which is not the copy under test" in capsys.readouterr().out


def test_check_names_the_line_of_a_syntax_error(toy: Lab, capsys: pytest.CaptureFixture[str]):
    toy.start()
    toy.solve(text=STATS.replace("total = sum(x)", "total = sum(x"))
    assert toy.check() == 1
    printed = capsys.readouterr().out
    assert "workspace/toy/stats.py:9: SyntaxError: '(' was never closed" in printed


def test_check_fails_on_an_import_error(toy: Lab, capsys: pytest.CaptureFixture[str]):
    toy.start()
    toy.solve(text="import no_such_module\n" + STATS)
    assert toy.check() == 1
    assert "No module named 'no_such_module'" in capsys.readouterr().out


def test_check_fails_on_a_function_taken_away(toy: Lab, capsys: pytest.CaptureFixture[str]):
    toy.start()
    toy.solve(text=STATS.replace("def mean(", "def average("))
    assert toy.check("stats.mean") == 1
    assert "no longer in your files" in capsys.readouterr().out


def test_check_stops_an_endless_loop(
    toy: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("labkit.exercises.check.CHECK_SECONDS", 2.0)
    toy.start()
    toy.solve(text=STATS.replace("total = sum(x)", "while True: pass"))
    assert toy.check() == 1
    printed = capsys.readouterr().out
    assert "test_mean[x0]: still running after 2 s" in printed
    assert "passed       stats.Running.update" in printed


def test_check_survives_a_crash(toy: Lab, capsys: pytest.CaptureFixture[str]):
    toy.start()
    toy.solve(text=STATS.replace("total = sum(x)", "import os; os.abort()"))
    assert toy.check("stats.mean") == 1
    assert "the process died in test_mean[x0]" in capsys.readouterr().out


MARK = '@pytest.mark.exercise("stats.mean")\n'
SKIP = MARK + "@pytest.mark.skip\n"


@pytest.mark.parametrize("marks", ["", SKIP], ids=["no test", "all skipped"])
def test_check_fails_when_no_test_ran(toy: Lab, capsys: pytest.CaptureFixture[str], marks: str):
    toy.edit("tests/toy/test_stats.py", MARK, marks)
    toy.start()
    toy.solve()
    assert toy.check() == 1
    assert "no test ran" in capsys.readouterr().out


def test_check_uses_the_repositorys_other_weeks(toy: Lab):
    """An earlier week comes from the repository, even where the learner has a blank of it."""
    toy.write("earlier/__init__.py", "TOTAL = sum\n")
    toy.write("workspace/earlier/__init__.py", "raise NotImplementedError\n")
    toy.edit("toy/stats.py", "from labkit", "from earlier import TOTAL\nfrom labkit")
    toy.edit("toy/stats.py", "total = sum(x)", "total = TOTAL(x)")
    toy.start()
    toy.solve(text=toy.root.joinpath("toy/stats.py").read_text())
    assert toy.check() == 0


# ---- the rest


def test_names_of_exercises_must_be_written_out(toy: Lab):
    toy.edit("tests/toy/test_stats.py", '"stats.mean"', '"stats." + "mean"')
    with pytest.raises(UsageError, match=r"test_stats\.py:6: write the name out"):
        toy.verify()


def test_grading_leaves_nothing_behind(toy: Lab):
    toy.start()
    toy.solve()
    before = {f: f.read_bytes() for f in toy.root.rglob("*") if f.is_file()}
    toy.check()
    toy.verify()
    after = {f: f.read_bytes() for f in toy.root.rglob("*") if f.is_file()}
    assert after.pop(toy.root / ".cache" / "grades" / "toy.json")
    assert after == before


def test_importing_labkit_exercise_is_light():
    """Every week imports it, `--help` included."""
    code = "import sys, labkit; print({'torch', 'numpy', 'pytest', 'yaml'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == "set()"


def test_an_elective_is_started_graded_and_verified_as_a_week_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lab = Lab(tmp_path.resolve(), "electives.toy")
    assert lab.verify() == 0
    assert "the tests grade" in capsys.readouterr().out
    lab.start()
    assert (tmp_path / "workspace/electives/toy/stats.py").is_file()
    assert lab.check() == 1
    lab.solve()
    assert lab.check() == 0
    lab.solve(text=STATS.replace("total / len(x)", "total"))
    assert lab.check("mean") == 1
    assert mutants(["electives.toy"], root=lab.root) == 0
