"""Which run a person means: the newest that has what is asked for, or a folder."""

from __future__ import annotations

from pathlib import Path

from labkit import UsageError, paths
from labkit.run import folders
from labkit.run.ending import resume_command


def find(where: str, marker: str) -> Path:
    """The folder of a run of the capstone that has the file `marker`.

    Args:
        where: `latest`, or a run folder.
        marker: path below the run's folder, such as `track.json`.
    Raises:
        UsageError when there is no such run; for a run that is not finished, with the stages that
        are and what to type to go on.
    """
    if where == "latest":
        found = [
            folder for folder in (paths.runs() / "capstone").glob("*/*")
            if (folder / marker).is_file()
        ]  # fmt: skip
        if not found:
            raise UsageError(
                f"no run of capstone below {paths.runs()} has got that far; start one:\n"
                "    python -m capstone.train +size=tiny"
            )
        return folders.newest_first(found)[0]
    folder = folders.saved_folder("capstone", where)
    if not (folder / marker).is_file():
        done = sorted(path.parent.name for path in folder.glob("stages/*/stage.json"))
        raise UsageError(
            f"{folder} has not finished: there is no {marker} yet. Finished stages: "
            f"{', '.join(done) or 'none'}.\nGo on with it: {resume_command('capstone', folder)}"
        )
    return folder
