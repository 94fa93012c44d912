"""`lab exercise check` on learners' files that misbehave: many in one call, since a call costs."""

import contextlib
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from labkit.exercises import fill
from labkit.exercises.check import check
from labkit.exercises.start import start
from tests.labkit.exercise_lab import STATS, Lab

ANSWERS = {  # what a learner wrote, and a piece of what check must say of it
    "blank": (None, "not started", "about 5 min"),
    "skips": ("import pytest\n    pytest.skip('later')", "failed", "leaves the test by pytest.sk"),
    "xfails": ("import pytest\n    pytest.xfail('later')", "failed", "by pytest.xfail, which is"),
    "exits": ("raise SystemExit(0)", "failed", "leaves the test by sys.exit or exit"),
    "quits": ("import pytest\n    pytest.exit('', 0)", "failed", "leaves the test by pytest.exit"),
    "interrupts": (
        "raise KeyboardInterrupt", "failed", "by KeyboardInterrupt, which is not an answer",
    ),
    "dies": ("import os\n    os._exit(0)", "failed", "the process died in test_dies"),
    "raises": ("raise ValueError(7)", "failed", "ValueError: 7  (workspace/odd/odd.py:"),
    "wrong": ("return 3 * x", "failed", "0 of 2 tests"),
    "reads": (
        "from importlib.util import module_from_spec, spec_from_file_location\n"
        "    spec = spec_from_file_location('mine', SOLUTION)\n"
        "    mine = module_from_spec(spec)\n    spec.loader.exec_module(mine)\n"
        "    return mine.reads(x)",
        "failed", "reads the lab's solution (odd)",
    ),
    "peeks": (
        "import ast\n    text = open(SOLUTION).read()\n"
        "    return 2 * x if ast.parse(text) else 0",
        "failed", "reads the lab's solution (odd)",
    ),
    "forges": (
        "import json, os, pathlib, struct\n"
        "    told = [{'test': 't', 'result': 'passed'}, {'end': 1.0}]\n"
        "    for number in range(20):\n"
        "        with open(f'{number}.jsonl', 'a') as file:\n"
        "            file.writelines(json.dumps(each) + '\\n' for each in told)\n"
        "    for descriptor in range(3, 60):\n"
        "        for each in told:\n"
        "            data = json.dumps(['', each]).encode()\n"
        "            try:\n"
        "                os.write(descriptor, struct.pack('!i', len(data)) + data)\n"
        "            except OSError:\n                pass\n"
        "    os._exit(0)",
        "failed", "the process died in test_forges",
    ),
    "starts": (
        "import os, subprocess, sys\n"
        "    code = 'import os, subprocess as s; s.Popen([\"sleep\", \"987\"], '\n"
        "    code += 'start_new_session=True, stdout=s.DEVNULL, stderr=s.DEVNULL)'\n"
        "    subprocess.run([sys.executable, '-c', code], check=True)\n"
        "    return 2 * x",
        "passed", "2 of 2 tests",
    ),
    "rests": ("return blank(x) + 1 - 1", "passed", "2 of 2 tests"),
    "leans": (
        "return raises(x)", "passed", "right by itself; with your other functions, look there: "
        "test_leans[1]: ValueError: 7",
    ),
}  # fmt: skip


def module(body: Callable[[str], str]) -> str:
    """A file of exercises that all double a number."""
    functions = (
        f'\n\n@exercise(minutes=5)\ndef {name}(x):\n    """2 x."""\n    {body(name)}\n'
        for name in ANSWERS
    )
    return (
        f"from labkit.exercises.mark import exercise\n\nSOLUTION = 'SOLUTION'\n{''.join(functions)}"
    )


@dataclass(frozen=True)
class Verdicts:
    """What check said of each answer, and the file in which they stand."""

    said: dict[str, list[str]]
    own: Path

    def __call__(self, name: str) -> list[str]:
        return self.said[name]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """What one call of check says of each answer: the verdict's line, and those that explain it."""
    root = tmp_path_factory.mktemp("odd").resolve()
    tests = "import pytest\nfrom odd.odd import *\n" + "".join(
        f'\n@pytest.mark.exercise("odd.{name}")\n@pytest.mark.parametrize("x", [1, 5])\n'
        f"def test_{name}(x):\n    assert {name}(x) == 2 * x\n"
        for name in ANSWERS
    )
    lab = Lab(root)
    lab.write("odd/__init__.py", "")
    lab.write("odd/odd.py", module(lambda name: "y = x\n    return y + x"))
    lab.write("tests/odd/test_odd.py", tests)
    workspace = root / "workspace"
    start("odd", root=root, workspace=workspace)
    own = workspace / "odd" / "odd.py"
    blanks = own.read_text()
    text = module(lambda name: ANSWERS[name][0] or "BLANK")
    blank = 'raise NotImplementedError("exercise: odd.blank")'
    assert blank in blanks
    text = text.replace("BLANK", blank).replace("'SOLUTION'", repr(str(root / "odd" / "odd.py")))
    own.write_text(text)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert check("odd", root=root, workspace=workspace) == 1
    said: dict[str, list[str]] = {}
    for line in printed.getvalue().splitlines()[1:-1]:
        if line[2] != " ":
            name = line.split("odd.")[1].split()[0]
        said.setdefault(name, []).append(line)
    return Verdicts(said, own)


@pytest.mark.parametrize("answer", ANSWERS)
def test_check_of_an_answer_that_misbehaves(verdicts: Verdicts, answer: str):
    _, verdict, text = ANSWERS[answer]
    said = verdicts(answer)
    assert said[0].startswith(f"  {verdict} ")
    assert text in "\n".join(said)


def test_check_tells_an_error_once(verdicts: Verdicts):
    """Two tests failed with this message."""
    said = verdicts("raises")
    assert len(said) == 2
    assert said[1].endswith("and 1 more with the same message")
    said = verdicts("wrong")  # two messages, but of one assertion
    assert len(said) == 2
    assert "assert 3 == (2 * 1)" in said[1]
    assert said[1].endswith("and 1 more like it")


def test_check_names_the_line_of_the_learners_own_file(verdicts: Verdicts):
    """A function further up was blank and is filled in for the grade; that moves no line."""
    lines = verdicts.own.read_text().splitlines()
    number = 1 + lines.index("    raise ValueError(7)")
    assert f"(workspace/odd/odd.py:{number})" in verdicts("raises")[1]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux tells its processes")
def test_check_leaves_no_process_running(verdicts: Verdicts):
    """One that left its group and whose parent ended, as a daemon does."""
    assert verdicts("starts")[0].startswith("  passed")
    deadline = time.monotonic() + 10  # until the system has taken it away

    def sleeping() -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "cmdline").read_bytes() == b"sleep\x00987\x00":
                    found.append(folder.name)
        return found

    while sleeping() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sleeping() == []


@pytest.fixture
def toy(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path.resolve())
    lab.start()
    return lab


def test_check_of_a_file_that_is_not_utf_8(toy: Lab, capsys: pytest.CaptureFixture[str]):
    source = "# -*- coding: latin-1 -*-\n" + STATS.replace("total = sum(x)", "total = sum(x)  # é")
    (toy.own / "stats.py").write_bytes(source.encode("latin-1"))
    assert toy.check() == 1
    line = 1 + source.splitlines().index("    total = sum(x)  # é")
    said = capsys.readouterr().out
    assert f"{os.path.join('workspace', 'toy', 'stats.py')}:{line}: byte 0xe9 is not UTF-8" in said


def test_check_of_a_file_that_begins_with_a_mark_of_utf_8(toy: Lab):
    (toy.own / "stats.py").write_bytes(b"\xef\xbb\xbf" + STATS.encode())
    assert toy.check() == 0


def test_check_of_a_module_that_skips_itself(toy: Lab, capsys: pytest.CaptureFixture[str]):
    skip = "import pytest\n\npytest.skip('later', allow_module_level=True)\n"
    toy.solve(text=skip + STATS)
    assert toy.check("mean") == 1
    assert "workspace/toy/stats.py:3 calls pytest.skip (Skipped: later)" in capsys.readouterr().out


def test_filling_takes_arguments_and_body_and_keeps_every_line():
    own = "def f(x):\n    pass\n\n\ndef g(x):\n    return 1 / 0\n"
    right = "\n\n\ndef f(x, y=2):\n    '''Doc.'''\n    z = x + y\n    return z\n\n\ndef g(x): ...\n"
    names: dict[str, Callable[..., int]] = {}
    exec(compile(fill.filled(own, right, ["f", "h"]), "own.py", "exec"), names)
    assert names["f"](3) == 5
    with pytest.raises(ZeroDivisionError) as error:
        names["g"](0)
    assert error.traceback[-1].lineno + 1 == 6
