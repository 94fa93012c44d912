"""Where things are. Everything hangs on the clone, never on the caller's working directory.

`LAB_HOME` moves what runs write (runs/, results/, artifacts/); `LAB_DATA` names a folder of
datasets that is looked at first; `LAB_WORKSPACE` moves the learner's files.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


def home() -> Path:
    """The folder in which runs/, results/ and artifacts/ are: $LAB_HOME, or the clone."""
    return Path(os.environ.get("LAB_HOME") or ROOT).expanduser().resolve()


def runs() -> Path:
    return home() / "runs"


def results() -> Path:
    return home() / "results"


def artifacts() -> Path:
    return home() / "artifacts"


def data_folders() -> list[Path]:
    """Folders searched for datasets, in order: $LAB_DATA if set, then data/ in the clone."""
    named = os.environ.get("LAB_DATA")
    return [*([Path(named).expanduser().resolve()] if named else []), ROOT / "data"]


def workspace() -> Path:
    """The learner's own copies of weeks (`lab exercise start`)."""
    return Path(os.environ.get("LAB_WORKSPACE") or ROOT / "workspace").expanduser().resolve()
