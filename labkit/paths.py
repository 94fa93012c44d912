"""Where files are: relative to the clone, not to the caller's working directory.

`LAB_HOME` moves what runs write (runs/, results/, artifacts/); `LAB_DATA` names a folder of
datasets that is searched first; `LAB_WORKSPACE` moves the learner's files.
"""

import os
from pathlib import Path

from labkit.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


def typed(text: str) -> Path:
    """A path as a person types it, with `~`. Raises UsageError for a user who is not there."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text}: there is no such user's home; type the whole path") from error


def _setting(name: str, default: Path) -> Path:
    """The folder that an environment variable names. Raises UsageError when that is not a path."""
    try:
        return typed(os.environ.get(name) or str(default)).resolve()
    except (OSError, RuntimeError, ValueError, UsageError) as error:
        raise UsageError(f"{name}: {error}") from error


def home() -> Path:
    """The folder in which runs/, results/ and artifacts/ are: $LAB_HOME, or the clone."""
    return _setting("LAB_HOME", ROOT)


def runs() -> Path:
    return home() / "runs"


def results() -> Path:
    return home() / "results"


def artifacts() -> Path:
    return home() / "artifacts"


def data_folders() -> list[Path]:
    """Folders searched for datasets, in order: $LAB_DATA if set, then data/ in the clone."""
    named = [_setting("LAB_DATA", ROOT)] if os.environ.get("LAB_DATA") else []
    return [*named, ROOT / "data"]


def workspace() -> Path:
    """The learner's own copies of weeks (`lab exercise start`)."""
    return _setting("LAB_WORKSPACE", ROOT / "workspace")


def week_folder(root: Path, week: str) -> Path:
    """Where a week is below `root`, by its module's name: electives.theory is electives/theory."""
    return root.joinpath(*week.split("."))
