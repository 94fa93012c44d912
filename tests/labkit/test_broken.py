"""A broken run trains on a copy of the week with one bug in it, which stays for the learner."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit import UsageError, bugs, course
from labkit.paths import ROOT
from labkit.run import broken
from labkit.run.program import Program

BUGS = """\
maths.double:
  - name: three times
    replace: "2 * x"
    with: "3 * x"
train.train:
  - name: no result
    replace: 'run.result({"y": maths.double(cfg.x)})'
    with: 'run.result({"y": -1.0})'
"""
TRAIN = """\
from dataclasses import dataclass

import labkit.paths
from labkit import LabConfig, Run, lab


@dataclass
class Config(LabConfig):
    x: float = 1.0


@lab("wee", Config, backend="numpy")
def train(cfg: Config, run: Run) -> None:
    from wee import maths

    run.generated("numbers", {"test": 1}, "0")
    run.track(nothing=[])
    for step in run.steps(3):
        run.log({"train/y": maths.double(cfg.x)}, step)
        if step == 1:
            run.save()
            assert cfg.x != 9, "stopped on purpose"
    run.result({"y": maths.double(cfg.x)})


if __name__ == "__main__":
    train()
"""


@pytest.fixture
def lab_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one week, `wee`."""
    for name, text in {
        "wee/__init__.py": '"""A week."""\n',
        "wee/maths.py": "def double(x):\n    return 2 * x\n",
        "wee/train.py": TRAIN,
        "wee/hints.yaml": "maths.double: [think]\n",
        "tests/wee/bugs.yaml": BUGS,
        "configs/wee/config.yaml": "defaults: [wee_schema, _self_]\n",
        "configs/wee/size/smoke.yaml": "# @package _global_\n",
        "configs/wee/experiment/broken_double.yaml": (
            '# @package _global_\nbug: "maths.double: three times"\nx: 1.0\n'
        ),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("labkit.paths.ROOT", tmp_path)
    monkeypatch.setattr("labkit.paths.CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(bugs.of_week, "__defaults__", (tmp_path,))
    monkeypatch.setattr(bugs.planted, "__defaults__", (tmp_path,))
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "wee"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def run(root: Path, *words: str) -> tuple[int, Path, float | None]:
    """Exit code, the newest run folder, and the result."""
    from wee.train import train  # type: ignore[import-not-found]

    code = train.main(list(words))
    folder = max(root.glob("home/runs/wee/*/*"), key=lambda path: path.stat().st_mtime)
    record = json.loads((folder / "result.json").read_text())
    return code, folder, record["metrics"].get("y")


def test_a_broken_run_has_the_bug_and_leaves_its_code(
    lab_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder, y = run(lab_root, "+size=smoke", "+experiment=broken_double")
    assert (code, y) == (0, 3.0)
    assert (folder / "code/wee/maths.py").read_text() == "def double(x):\n    return 3 * x\n"
    assert not (folder / "code/wee/hints.yaml").exists()
    said = capsys.readouterr().err
    assert f"cd {folder / 'code'}; python -m wee.train +size=smoke x=1.0" in said
    assert (lab_root / "wee/maths.py").read_text() == "def double(x):\n    return 2 * x\n"
    assert run(lab_root, "+size=smoke")[2] == 2.0, "the week itself is as it was"
    assert str(folder) not in sys.path


def test_a_bug_may_be_in_the_loop(lab_root: Path) -> None:
    assert run(lab_root, "+size=smoke", "bug='train.train: no result'")[2] == -1.0


def test_a_resumed_broken_run_goes_on_with_its_copy(lab_root: Path) -> None:
    code, folder, _ = run(lab_root, "+size=smoke", "+experiment=broken_double", "x=9")
    assert code == 1
    copy = folder / "code/wee/train.py"
    copy.write_text(copy.read_text().replace("cfg.x != 9", "True"))
    code, again, y = run(lab_root, f"resume={folder}")
    assert (code, again, y) == (0, folder, 27.0)


def test_the_mended_copy_runs_by_itself(lab_root: Path) -> None:
    _, folder, _ = run(lab_root, "+size=smoke", "+experiment=broken_double")
    maths = folder / "code/wee/maths.py"
    maths.write_text(maths.read_text().replace("3 * x", "2 * x + 100"))
    code = "import wee.maths; print(wee.maths.__file__, wee.maths.double(1))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "code", capture_output=True, text=True
    )
    assert done.stdout.split() == [str(maths), "102"], done.stderr


@pytest.mark.parametrize(
    ("bug", "said"),
    [
        ("maths.double: thre times", "did you mean maths.double: three times?"),
        ("maths.double", "is not in tests/wee/bugs.yaml"),
    ],
)
def test_a_bug_that_is_not_there(
    lab_root: Path, bug: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from wee.train import train

    assert train.main(["+size=smoke", f"bug='{bug}'"]) == 2
    assert said in capsys.readouterr().err
    assert not list(lab_root.glob("home/runs/wee/*/*"))


def test_a_bug_that_no_longer_fits_is_said(lab_root: Path) -> None:
    (lab_root / "wee/maths.py").write_text("def double(x):\n    return x + x\n")
    with pytest.raises(UsageError, match="does not fit the code"):
        bugs.planted("wee", "maths.double: three times", lab_root)


WEEKS = [unit for unit in course.load().units if unit.built]


@pytest.mark.parametrize("unit", WEEKS, ids=lambda unit: unit.package)
def test_bugs_of_experiments_fit_the_code(unit: Any, tmp_path: Path) -> None:
    for bug in bugs.used_by_experiments(unit.package):
        program: Any = Program(unit.package, Any, print, "torch", False, False)  # type: ignore[arg-type]
        folder = tmp_path / bug.replace("/", "-")
        broken.make_copy(program, bug, folder)
        ours = {f.relative_to(ROOT / unit.package) for f in (ROOT / unit.package).rglob("*.py")}
        copies = folder / "code" / unit.package
        changed = [
            file
            for file in ours
            if (copies / file).read_bytes() != (ROOT / unit.package / file).read_bytes()
        ]
        assert len(changed) == 1, bug
        compile((copies / changed[0]).read_text(), str(changed[0]), "exec")
