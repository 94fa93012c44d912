"""The code of a run: versions of libraries, commit of the clone."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from typing import Any

from labkit import paths

PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "scikit-learn",
    "gymnasium",
    "diffusers",
    "transformers",
)

_MODULES = {"scikit-learn": "sklearn"}

GENERATED = ("results", "PROGRESS.md", "README.md", "*/README.md")
"""Files that finished runs change; they do not make the clone dirty."""

ORIGIN = ".lab-origin.json"
"""In a copy of the working tree that was sent to a rented machine: its `git_state` here."""


def versions() -> dict[str, str]:
    """Versions of Python and of those libraries that this process has really loaded."""
    loaded = {n: metadata.version(n) for n in PACKAGES if _MODULES.get(n, n) in sys.modules}
    return {"python": ".".join(map(str, sys.version_info[:3])), **loaded}


def git_state() -> dict[str, Any]:
    """Commit of the clone, and whether code differs from it; nulls outside a git checkout."""
    origin = paths.ROOT / ORIGIN
    try:
        if origin.is_file():
            return dict(json.loads(origin.read_text(encoding="utf-8")))
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", ".", *(f":!{path}" for path in GENERATED))
        return {"commit": commit, "dirty": bool(changes)}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=paths.ROOT, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
