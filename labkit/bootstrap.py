"""Makes the lab's environment on Linux, macOS and Windows, with Python's own library alone.

    python labkit/bootstrap.py           .venv in the clone, with the tested versions of everything
    python labkit/bootstrap.py demo      the same, and then `lab demo`; further words are settings

This file runs before anything is installed, so it imports nothing of the lab. `make setup` and
`lab setup` run it too: there is one way to make the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ".venv"
STAMP = ".done"
"""File in .venv that says with what it was completed; `make` looks at its date."""
MADE_FROM = ("pyproject.toml", "constraints.txt")
NOT_INSTALLED = (
    "pip could not install everything (see above). Look at the network and at the space on the "
    "disk, 8 GB or more, and type the command again: what is already there stays."
)


class SetupFailed(Exception):
    """It cannot be done: what was wrong and what to type, and the exit code."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


def python_of(venv: Path, platform: str = sys.platform) -> Path:
    """The interpreter inside an environment: Windows keeps it in another folder."""
    return venv / "Scripts" / "python.exe" if platform == "win32" else venv / "bin" / "python"


def activation(venv: Path, platform: str = sys.platform) -> str:
    """What a person types so that `python` and `lab` are those of the environment."""
    if platform == "win32":
        return rf"{venv}\Scripts\activate"
    return f"source {venv.as_posix()}/bin/activate"


def versions(root: Path = ROOT) -> tuple[tuple[int, int], tuple[int, int]]:
    """The oldest Python that pyproject.toml allows, and the first that is too new."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'requires-python = ">=(\d+)\.(\d+),<(\d+)\.(\d+)"', text)
    if found is None:
        raise SetupFailed('pyproject.toml has no line: requires-python = ">=3.11,<3.14"')
    low, minor, high, first = map(int, found.groups())
    return (low, minor), (high, first)


def check_version(version: Sequence[int], root: Path = ROOT, platform: str = sys.platform) -> None:
    """Raises SetupFailed for a Python that the lab does not run on."""
    oldest, too_new = versions(root)
    if oldest <= tuple(version[:2]) < too_new:
        return
    newest = f"{too_new[0]}.{too_new[1] - 1}"
    command = f"python{newest} labkit/bootstrap.py"
    if platform == "win32":
        command = rf"py -{newest} labkit\bootstrap.py"
    raise SetupFailed(
        f"the lab runs on Python {oldest[0]}.{oldest[1]} to {newest}; this is "
        f"{'.'.join(map(str, version[:3]))}.\nInstall Python {newest}, then type: {command}"
    )


def fingerprint(root: Path = ROOT) -> str:
    """Of the files that the environment is made from, whatever their dates and line ends."""
    text = "".join((root / name).read_text(encoding="utf-8") for name in MADE_FROM)
    return hashlib.sha256(text.encode()).hexdigest()


def is_fresh(root: Path = ROOT, platform: str = sys.platform) -> bool:
    """Whether .venv was completed with pyproject.toml and constraints.txt as they are now."""
    stamp = root / VENV / STAMP
    if not stamp.is_file() or not python_of(root / VENV, platform).is_file():
        return False
    return stamp.read_text(encoding="utf-8") == fingerprint(root)


def commands(
    root: Path = ROOT, python: str = sys.executable, platform: str = sys.platform
) -> list[list[str]]:
    """What makes the environment: first .venv if it is not there, then everything in it."""
    inside = python_of(root / VENV, platform)
    make = [] if inside.is_file() else [[python, "-m", "venv", str(root / VENV)]]
    pip = [str(inside), "-m", "pip", "install", "--quiet", "--no-compile"]
    pip += ["--disable-pip-version-check", "-c", "constraints.txt", "-e", ".[dev]"]
    return [*make, pip]


def made_with(venv: Path) -> tuple[int, ...]:
    """The version of the Python that an environment was made with; empty when it is not known."""
    file = venv / "pyvenv.cfg"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    found = re.search(r"^version(?:_info)?\s*=\s*([\d.]+)", text, re.MULTILINE)
    return tuple(int(part) for part in found[1].split(".") if part) if found else ()


def setup(root: Path = ROOT, python: str = sys.executable) -> None:
    """Make .venv or bring it up to date. Raises SetupFailed."""
    if is_fresh(root):
        (root / VENV / STAMP).touch()
        return
    check_version(sys.version_info[:3], root)
    if (old := made_with(root / VENV)) and python_of(root / VENV).is_file():
        try:
            check_version(old, root)
        except SetupFailed as error:
            text = f"{root / VENV} was made with another Python: {error}\n(delete {VENV} first)"
            raise SetupFailed(text) from error
    say("installing the lab into .venv; the first time this takes minutes, mostly for PyTorch")
    for command in commands(root, python):
        if subprocess.run(command, cwd=root, check=False).returncode == 0:
            continue
        if "venv" in command:
            raise SetupFailed(
                f"{python} could not make an environment (see above).\n"
                "On Debian and Ubuntu it needs the package python3-venv: apt install python3-venv",
                code=1,
            )
        raise SetupFailed(NOT_INSTALLED, code=1)
    (root / VENV / STAMP).write_text(fingerprint(root), encoding="utf-8")


def become(command: Sequence[str]) -> int:
    """Run a command in place of this process; returns its exit code where that cannot be done."""
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform != "win32":
        os.execv(command[0], list(command))
    # There exec returns to the shell at once, while the command still runs. Ctrl-C reaches both:
    # the command answers it, and this process waits for its end.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    return subprocess.call(list(command))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str], root: Path = ROOT) -> int:
    """Carry out the words of the command line; returns the exit code."""
    what, *words = argv or ["setup"]
    if what in ("-h", "--help"):
        print(__doc__)
        return 0
    if what not in ("setup", "demo"):
        say(f"error: unknown word {what}; type setup, demo or --help")
        return 2
    try:
        setup(root)
    except SetupFailed as error:
        say(f"error: {error}")
        return error.code
    if what == "demo":
        return become([str(python_of(root / VENV)), "-m", "labkit.cli", "demo", *words])
    say(f"the lab is installed; now type:\n  {activation(Path(VENV))}\n  lab demo")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
