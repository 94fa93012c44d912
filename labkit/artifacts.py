"""What finished runs publish for later weeks: artifacts/<week>/<size>-<data>[-<experiment>]/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from labkit import paths, results
from labkit.console import say
from labkit.errors import RunFailed


def obtain(
    week: str,
    data: str,
    fallback: str | None = None,
    experiment: str | None = None,
    size: str = "tiny",
) -> Path:
    """The folder published by `week` at `size` on the dataset `data`, by that experiment or by the
    week as it is; its run is started when there is none.

    Where `data` is not on this machine, what was published on `fallback` will do, which is that
    week's own fallback for such data. Raises RunFailed when that run does not finish.
    """
    from labkit.data import here

    def published(*names: str | None) -> Path | None:
        ending = f"-{experiment}" if experiment else ""
        folders = [paths.artifacts() / week / f"{size}-{name}{ending}" for name in names if name]
        return next((folder for folder in folders if folder.is_dir()), None)

    if found := published(data, None if here(data) else fallback):
        return found
    command = ["-m", f"{week}.train", f"+size={size}", f"data={data}"]
    if fallback:
        command.append(f"fallback={fallback}")
    if experiment:
        command.append(f"+experiment={experiment}")
    say(
        f"This week needs what week {week} publishes: running it first"
        f"{_expected(week, size, data, experiment)}."
    )
    say(f"  python {' '.join(command)}")
    code = subprocess.run([sys.executable, *command], cwd=paths.ROOT).returncode
    found = published(data, fallback)
    if code != 0 or found is None:
        raise RunFailed(
            f"the prerequisite failed (exit {code}); run it by hand: python {' '.join(command)}"
        )
    return found


def _expected(week: str, size: str, data: str, experiment: str | None) -> str:
    """` (it took 60 s when last recorded)`, from results/; empty without such a record."""
    for record in reversed(results.read_all()):
        name = (record["data"] or {}).get("name")
        found = (record["week"], record["size"], name, record["experiment"])
        if found == (week, size, data, experiment):
            return f" (it took {record['wall_seconds']:.0f} s when last recorded)"
    return ""
