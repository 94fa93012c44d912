"""What the rented machine is: sent to its Python on stdin, so it needs the standard library only.

Prints one line: MARK and JSON. `labkit.remote.check` judges it.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

MARK = "LAB-ANSWER "
"""Begins the line of an answer: a login shell may print lines of its own before."""


def probe(folder: str) -> dict[str, object]:
    """Python, system, disk, GPUs, and what the lab has there already, below `folder`."""
    base = Path.home() / folder
    nearest = next(path for path in (base, *base.parents) if path.exists())
    return {
        "python": sys.executable,
        "version": platform.python_version(),
        "system": platform.system(),
        "base": str(base),
        "writable": os.access(nearest, os.W_OK | os.X_OK),
        "free_gb": shutil.disk_usage(nearest).free / 1e9,
        "rsync": shutil.which("rsync") is not None,
        "venv": has_venv(),
        "environments": sorted(path.parent.name for path in base.glob("env/*/done")),
        "gpus": gpus(),
        "cores": os.cpu_count(),
        "before": max((str(path.parent) for path in base.glob("runs/*/tree")), default=None),
        "runs": sorted(path.parent.name for path in base.glob("runs/*/lock") if held(path)),
    }


def has_venv() -> bool:
    """Whether this Python can make an environment; Debian packs that separately."""
    try:
        import ensurepip
        import venv
    except ImportError:
        return False
    return bool(ensurepip and venv)


def gpus() -> list[dict[str, object]]:
    """NVIDIA's cards with their memory in MB, and the driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version"]
    try:
        done = subprocess.run(
            [*query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[dict[str, object]] = []
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        name, total, used, driver = (part.strip() for part in line.split(","))
        found.append({"name": name, "mb": total, "used_mb": used, "driver": driver})
    return found


def held(lock: Path) -> bool:
    """Whether a living process holds the lock of a run."""
    import fcntl

    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


if __name__ == "__main__":
    print(MARK + json.dumps(probe(sys.argv[1])))
