"""The environment is made with Python's own library, in one way on all systems; and what labkit
does differently on Windows, tried here by naming that system.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from labkit import LabConfig, UsageError, bootstrap, cli
from labkit.doctor import project
from labkit.machine import memory, signals
from labkit.run import folders, life
from labkit.run import smoke as smoke_runs
from labkit.show import console
from labkit.state import checkpoint
from labkit.text import quoted

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "labkit" / "bootstrap.py"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with nothing but the two files that the environment is made from."""
    for name in bootstrap.MADE_FROM:
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


@pytest.fixture
def ran(clone: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run; making an environment leaves its interpreter."""
    seen: list[list[str]] = []

    def run(command: list[str], cwd: Path, check: bool) -> Any:
        seen.append(command)
        assert cwd == clone
        if "venv" in command:
            python = bootstrap.python_of(clone / ".venv")
            python.parent.mkdir(parents=True)
            python.touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_it_imports_nothing_that_must_be_installed_first() -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(FILE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").partition(".")[0])
    assert names <= sys.stdlib_module_names
    # -I -S: neither this folder nor what is installed can be imported.
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(FILE), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "python labkit/bootstrap.py" in done.stdout
    shadowed = {path.stem for path in FILE.parent.iterdir()} & sys.stdlib_module_names
    assert not shadowed, "Python looks for its own modules in the script's folder first"


def test_the_interpreter_is_where_each_system_has_it() -> None:
    venv = Path("clone") / ".venv"
    assert bootstrap.python_of(venv, "linux") == venv / "bin" / "python"
    assert bootstrap.python_of(venv, "darwin") == venv / "bin" / "python"
    assert bootstrap.python_of(venv, "win32") == venv / "Scripts" / "python.exe"
    assert bootstrap.activation(Path(".venv"), "linux") == "source .venv/bin/activate"
    assert bootstrap.activation(Path(".venv"), "win32") == r".venv\Scripts\activate"


def test_versions_are_those_of_pyproject() -> None:
    oldest, too_new = bootstrap.versions()
    words = [".".join(map(str, version)) for version in (oldest, too_new)]
    assert project()["requires-python"] == f">={words[0]},<{words[1]}"


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 4), (3, 13, 9)])
def test_pythons_that_the_lab_runs_on(version: tuple[int, ...]) -> None:
    bootstrap.check_version(version)


@pytest.mark.parametrize("version", [(3, 9, 2), (3, 10, 14), (3, 14, 0), (4, 0, 0)])
def test_other_pythons_are_refused_with_what_to_type(version: tuple[int, ...]) -> None:
    found = []
    for platform in ("linux", "win32"):
        with pytest.raises(bootstrap.SetupFailed) as caught:
            bootstrap.check_version(version, platform=platform)
        assert caught.value.code == 2
        found.append(str(caught.value))
    assert f"this is {'.'.join(map(str, version))}" in found[0]
    assert found[0].endswith("type: python3.13 labkit/bootstrap.py")
    assert found[1].endswith(r"type: py -3.13 labkit\bootstrap.py")


@pytest.mark.parametrize(
    ("platform", "inside"), [("linux", "bin/python"), ("win32", "Scripts/python.exe")]
)
def test_what_is_run_in_a_new_clone_and_in_one_that_has_an_environment(
    clone: Path, platform: str, inside: str
) -> None:
    venv, pip = bootstrap.commands(clone, "py", platform)
    assert venv == ["py", "-m", "venv", str(clone / ".venv")]
    assert pip[:4] == [str(clone / ".venv" / inside), "-m", "pip", "install"]
    assert pip[-4:] == ["-c", "constraints.txt", "-e", ".[dev]"]
    (clone / ".venv" / inside).parent.mkdir(parents=True)
    (clone / ".venv" / inside).touch()
    assert bootstrap.commands(clone, "py", platform) == [pip]


def test_it_is_made_once_and_again_when_a_version_changes(
    clone: Path, ran: list[list[str]]
) -> None:
    bootstrap.setup(clone)
    assert [command[2] for command in ran] == ["venv", "pip"]
    bootstrap.setup(clone)
    assert len(ran) == 2
    later, pins = time.time() + 10, clone / "constraints.txt"
    os.utime(pins, (later, later))  # as in a new clone around an environment that was kept
    bootstrap.setup(clone)
    assert len(ran) == 2
    pins.write_text(pins.read_text() + "another==1.0\n")
    assert not bootstrap.is_fresh(clone)
    bootstrap.setup(clone)
    assert [command[2] for command in ran] == ["venv", "pip", "pip"]


@pytest.mark.parametrize(
    ("fails", "says"), [("venv", "apt install python3-venv"), ("pip", "network")]
)
def test_a_failure_is_told_and_not_taken_for_an_environment(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    fails: str, says: str,
) -> None:  # fmt: skip
    code = lambda command, **_: SimpleNamespace(returncode=int(fails in command))  # noqa: E731
    monkeypatch.setattr(subprocess, "run", code)
    assert bootstrap.main(["setup"], clone) == 1
    assert says in capsys.readouterr().err
    assert not bootstrap.is_fresh(clone)


def test_an_environment_of_an_old_python_is_not_taken(
    clone: Path, ran: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    python = bootstrap.python_of(clone / ".venv")
    python.parent.mkdir(parents=True)
    python.touch()
    (clone / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.9.2\n")
    assert bootstrap.made_with(clone / ".venv") == (3, 9, 2)
    assert bootstrap.main([], clone) == 2
    assert "delete .venv" in capsys.readouterr().err
    assert ran == []


def test_the_demo_follows_in_the_new_environment(
    clone: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "become", lambda command: became.append(command) or 0)
    assert bootstrap.main(["demo", "+size=smoke"], clone) == 0
    python = str(bootstrap.python_of(clone / ".venv"))
    assert became == [[python, "-m", "labkit.cli", "demo", "+size=smoke"]]
    assert len(ran) == 2


def test_words_that_it_does_not_know(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(["dmeo"], clone) == 2
    assert "dmeo" in capsys.readouterr().err


def test_make_and_lab_make_it_in_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "labkit/bootstrap.py" in makefile
    assert "-m venv $(VENV)" not in makefile
    asked: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "main", lambda argv: asked.append(argv) or 0)
    assert cli.main(["setup"]) == 0
    assert asked == [["setup"]]


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ([], ["+size=tiny"]),
        (["seed=3"], ["+size=tiny", "seed=3"]),
        (["size=smoke"], ["size=smoke"]),
    ],
)
def test_lab_demo_is_the_diffusion_week(
    monkeypatch: pytest.MonkeyPatch, words: list[str], run: list[str]
) -> None:
    became: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(cli, "_become", lambda week, words: became.append((week, words)) or 0)
    assert cli.main(["demo", *words]) == 0
    assert became == [("diffusion", run)]


def test_lab_smoke_ends_with_the_first_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> Any:
        assert command[-1] == "+size=smoke"
        assert env["LAB_HOME"] != os.environ.get("LAB_HOME")
        assert Path(env["LAB_HOME"]).is_dir()
        ran.append(command[2])
        return SimpleNamespace(returncode=3 if command[2] == "attention.train" else 0)

    monkeypatch.setattr(smoke_runs.subprocess, "run", run)
    assert cli.main(["smoke", "math", "5", "diffusion"]) == 3
    assert ran == ["math_ml.train", "attention.train"]
    assert "attention ended with exit code 3" in capsys.readouterr().err


def test_ci_runs_on_the_three_systems() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["systems"]
    assert set(job["strategy"]["matrix"]["os"]) == {
        "ubuntu-latest",
        "macos-latest",
        "windows-latest",
    }
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert steps[0] == "python labkit/bootstrap.py"
    assert not [step for step in steps if step.startswith("make")], "Windows has no make"


# --- what is different on Windows ---


def test_closing_the_window_stops_a_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    monkeypatch.delattr(signal, "SIGBREAK", raising=False)
    assert signals.stop_signals() == [signal.SIGTERM]
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGABRT, raising=False)
    assert signals.stop_signals() == [signal.SIGTERM, signal.SIGABRT]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="sends a signal as POSIX has it")
@pytest.mark.parametrize(("platform", "code"), [("linux", 128 + signal.SIGTERM), ("win32", 7)])
def test_a_signal_is_passed_on_except_where_the_child_has_heard_it(
    platform: str, code: int, tmp_path: Path
) -> None:
    child = (
        "import os, sys, time; open('here', 'w').close(); time.sleep(1);"
        "sys.exit(int(os.environ['CODE']))"
    )

    def stop() -> None:
        while not (tmp_path / "here").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    environment = {**os.environ, "CODE": "7"}
    found = signals.finish([sys.executable, "-c", child], tmp_path, environment, platform)
    thread.join()
    assert found == code


def test_what_to_type_is_quoted_for_the_shell_there() -> None:
    folder = PureWindowsPath(r"C:\my runs\a")
    assert quoted(f"resume={folder}", "win32") == r'"resume=C:\my runs\a"'
    assert quoted(r"resume=C:\runs\a", "win32") == r"resume=C:\runs\a"
    assert quoted("resume=my runs/a", "linux") == "'resume=my runs/a'"


def test_memory_there_is_the_working_set(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = SimpleNamespace(wset=3_000_000, peak_wset=5_000_000)
    fake = SimpleNamespace(Process=lambda: SimpleNamespace(memory_info=lambda: sizes))
    monkeypatch.setitem(sys.modules, "psutil", fake)
    assert memory._windows_memory_mb("VmRSS") == 3.0
    assert memory._windows_memory_mb("VmHWM") == 5.0


def test_escape_sequences_only_where_they_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WT_SESSION", raising=False)
    assert console._knows_colours("linux")
    assert not console._knows_colours("win32")
    monkeypatch.setenv("WT_SESSION", "1")
    assert console._knows_colours("win32")


def test_a_checkpoint_that_is_held_open_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, held = Path.unlink, {"step-000000001.safetensors"}

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name in held:
            raise PermissionError(13, "another process uses the file")
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step})
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    held.clear()
    checkpoint.save(tmp_path, 4, {"step": 4})
    assert sorted(path.name[-13] for path in tmp_path.glob("*.safetensors")) == ["3", "4"]


def test_a_refused_run_leaves_no_lock_behind(
    week: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While it is held, Windows deletes everything except the lock."""
    remove, calls = life.shutil.rmtree, []

    def rmtree(folder: Any, **options: Any) -> None:
        kept = not calls
        calls.append(folder)
        remove(folder, **options)
        if kept:
            Path(folder).mkdir()
            (Path(folder) / folders.LOCK).touch()

    def train(cfg: LabConfig, run: Any) -> None:
        raise UsageError("it cannot be done")

    monkeypatch.setattr(life.shutil, "rmtree", rmtree)
    assert week(train).main([]) == 2
    assert calls
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []
    assert list((tmp_path / "runs").glob("*/*/*")) == []
