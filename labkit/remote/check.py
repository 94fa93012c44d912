"""Is the rented machine fit for the run? One question before anything is sent."""

from __future__ import annotations

import hashlib
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.errors import UsageError
from labkit.remote.probe import MARK
from labkit.remote.transport import SAFE_PATH, Connection, NotReached
from labkit.show.console import say, warn

PYTHONS = ("python3.13", "python3.12", "python3.11", "python3")
PLACES = ("$HOME/.local/bin/", "/usr/local/bin/", "/opt/conda/bin/", "$HOME/miniconda3/bin/")
"""Where Pythons are that a command over ssh does not find by its PATH."""
ENVIRONMENT_GB = 14.0
"""PyTorch with CUDA and the other packages, with what pip needs while it installs."""
RUN_GB = 1.0
BUSY_MB = 2000
"""Memory in use by which a card counts as busy."""

SCRIPT = """
old=
try() {{
    command -v "$1" >/dev/null 2>&1 || return 1
    if "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
    then exec "$1" -c {code} {folder}
    fi
    said=$("$1" -c 'import sys; print(".".join(map(str, sys.version_info[:3])))' 2>/dev/null)
    old="$old $1=$said"
}}
{tries}
echo '{mark}{{"python": null, "old": "'"$old"'"}}'
"""
"""Read by sh there: the first Python that will do answers; else the versions that will not."""


@dataclass(frozen=True)
class Needs:
    """What the run wants of a machine."""

    gpu: bool
    """Whether it computes on a GPU at all."""
    must_have_gpu: bool
    """Whether it is refused without."""
    python: str | None
    """A Python there that has everything."""


def ask(connection: Connection, folder: str, python: str | None) -> dict[str, Any]:
    """What the machine says of itself. Raises UsageError when it is not reached."""
    code = Path(__file__).with_name("probe.py").read_text(encoding="utf-8")
    if python:
        names = [shlex.quote(python)]
    else:
        names = [*PYTHONS, *(f'"{place}{name}"' for place in PLACES for name in PYTHONS)]
    script = SCRIPT.format(
        code=shlex.quote(code),
        folder=shlex.quote(folder),
        tries="\n".join(f"try {name}" for name in names),
        mark=MARK,
    )
    try:
        found: dict[str, Any] = connection.ask("sh", "-s", text=script, seconds=30)
    except NotReached as error:
        raise UsageError(
            f"{error}\nIs it running, and are address and port right? Try: {connection.by_hand()}"
        ) from error
    return found


def judge(about: dict[str, Any], where: str, needs: Needs) -> None:
    """Say what was found. Raises UsageError when the run cannot be made there."""
    if about["python"] is None:
        raise UsageError(_no_python(about["old"].split(), where, needs.python))
    if not about["rsync"]:
        raise UsageError(
            f"rsync is not installed on {where}; type there: sudo apt-get install -y rsync"
        )
    base = about["base"]
    if not SAFE_PATH.fullmatch(base):
        raise UsageError(f"{base} on {where} is no plain path; choose one by remote.folder=/...")
    if not about["writable"]:
        raise UsageError(
            f"{base} on {where} cannot be written to; choose a folder by remote.folder=/..."
        )
    name = environment_name(about["version"])
    makes = needs.python is None and name not in about["environments"]
    if makes and not about["venv"]:
        version = ".".join(about["version"].split(".")[:2])
        raise UsageError(
            f"the Python {about['version']} of {where} cannot make an environment; type there: "
            f"sudo apt-get install -y python{version}-venv"
        )
    wanted = RUN_GB + (ENVIRONMENT_GB if makes else 0)
    if about["free_gb"] < wanted:
        raise UsageError(
            f"{where} has {about['free_gb']:.1f} GB free below {base}, and the run needs "
            f"{wanted:.0f} GB there{' (PyTorch is most of it)' if makes else ''}. Make room "
            "(lab remote cleanup), or choose a larger disk by remote.folder=/..."
        )
    say(f"{where}: Python {about['version']}, {about['free_gb']:.0f} GB free, {_cards(about)}")
    if about["runs"]:
        warn(f"another run is at work there ({', '.join(about['runs'])}); both will be slower")
    if needs.gpu:
        _judge_gpu(about, where, needs)


def _judge_gpu(about: dict[str, Any], where: str, needs: Needs) -> None:
    busy = [gpu for gpu in about["gpus"] if float(gpu["used_mb"]) > BUSY_MB]
    if busy:
        warn(f"{busy[0]['name']} there has {float(busy[0]['used_mb']) / 1000:.0f} GB in use")
    if about["gpus"]:
        return
    if needs.must_have_gpu:
        raise UsageError(
            f"there is no NVIDIA GPU on {where}, and the full size needs one. Rent a machine "
            "that has one (nvidia-smi shows it), or run a smaller size there: +size=tiny"
        )
    warn(f"there is no NVIDIA GPU on {where}: the run computes on its CPU")


def _cards(about: dict[str, Any]) -> str:
    gpus = about["gpus"]
    if not gpus:
        return f"no GPU, {about['cores']} cores"
    memory = float(gpus[0]["mb"]) / 1024
    return f"{len(gpus)} x {gpus[0]['name']} ({memory:.0f} GB), driver {gpus[0]['driver']}"


def _no_python(old: list[str], where: str, asked: str | None) -> str:
    if asked:
        found = f"it is {old[0].partition('=')[2]}" if old else "it does not run there"
        return f"remote.python={asked} on {where} must be Python 3.11, 3.12 or 3.13; {found}"
    found = f"only {', '.join(old)}" if old else "no Python"
    return (
        f"the lab runs on Python 3.11, 3.12 or 3.13, and {where} has {found}. Type there: "
        "sudo apt-get install -y python3.11 python3.11-venv\n"
        "Or, without root: curl -LsSf https://astral.sh/uv/install.sh | sh; "
        "~/.local/bin/uv python install 3.12"
    )


# --- the environment there ---


def requirements() -> list[str]:
    """What pip is to install there: the lab's own dependencies."""
    text = (paths.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return list(tomllib.loads(text)["project"]["dependencies"])


def requirements_hash() -> str:
    """The same for the same requirements and pins."""
    pins = (paths.ROOT / "constraints.txt").read_text(encoding="utf-8")
    return hashlib.sha256("\n".join([*requirements(), pins]).encode()).hexdigest()[:12]


def environment_name(version: str) -> str:
    """The folder of an environment there: one for each Python and each set of requirements."""
    return f"{'.'.join(version.split('.')[:2])}-{requirements_hash()}"
