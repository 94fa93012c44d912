"""The bugs that a week's bugs.yaml plants: for the graders to catch, and for experiments to show.

    attention.causal_mask:                   a function of the week, as module.function
      - name: a query sees the key after its own
        replace: "<= position[:, None]"      text in the function, outside its docstring
        with: "<= position[:, None] + 1"
      - name: ...
        body: |                              or all of its statements
          return ...

A bug is written down once. `bug: "attention.causal_mask: a query sees the key after its own"` in an
experiment trains on a copy of the week with that bug in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labkit import surgery
from labkit.errors import UsageError
from labkit.paths import ROOT, week_folder
from labkit.text import closest


def of_week(week: str, root: Path = ROOT) -> dict[str, list[Any]]:
    """What bugs.yaml of a week lists, by function. Raises UsageError when it is not such a list."""
    import yaml

    file = week_folder(root / "tests", week) / "bugs.yaml"
    found = (yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}) or {}
    if not isinstance(found, dict) or not all(isinstance(each, list) for each in found.values()):
        raise UsageError(f"tests/{week}/bugs.yaml must map each exercise to a list of bugs")
    return found


def place(folder: Path, function: str) -> tuple[Path, str]:
    """File of `module.function` in a week's folder, and the function's name in it.

    Raises ValueError when there is none.
    """
    parts = function.split(".")
    for count in range(len(parts) - 1, 0, -1):
        file = folder.joinpath(*parts[:count]).with_suffix(".py")
        if file.is_file():
            inner = ".".join(parts[count:])
            if inner in surgery.functions(surgery.read(file)):
                return file, inner
    raise ValueError(f"there is no function {function} in {folder.name}")


def plant(source: str, function: str, bug: Any) -> tuple[str, str]:
    """Name of one entry of bugs.yaml, and the source with that bug in it. Raises ValueError."""
    if not isinstance(bug, dict) or set(bug) not in ({"name", "replace", "with"}, {"name", "body"}):
        raise ValueError("it must have exactly the keys name, replace, with, or name, body")
    if not all(isinstance(value, str) for value in bug.values()):
        raise ValueError("its values must be text: put numbers in quotes")
    if "body" in bug:
        return bug["name"], surgery.replace_body(source, function, bug["body"])
    return bug["name"], surgery.mutate(source, function, bug["replace"], bug["with"])


def planted(week: str, said: str, root: Path = ROOT) -> tuple[Path, str]:
    """The file of the week that `function: name` changes, and its text with that bug in it.

    Raises UsageError when bugs.yaml has no such bug, or it does not fit the code.
    """
    every = of_week(week, root)
    function, _, name = said.partition(": ")
    known = [f"{f}: {bug.get('name')}" for f, bugs in every.items() for bug in bugs]
    if said not in known:
        raise UsageError(f"bug={said} is not in tests/{week}/bugs.yaml{closest(said, known)}")
    bug = next(bug for bug in every[function] if bug.get("name") == name)
    try:
        file, inner = place(week_folder(root, week), function)
        return file, plant(surgery.read(file), inner, bug)[1]
    except ValueError as error:
        raise UsageError(f"bug={said} does not fit the code: {error}") from error


def used_by_experiments(week: str, root: Path = ROOT) -> set[str]:
    """The bugs that the week's experiments name, including those of its parts."""
    import yaml

    found = set()
    for file in root.glob(f"configs/{week}*/experiment/*.yaml"):
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(settings, dict) and settings.get("bug"):
            found.add(str(settings["bug"]))
    return found
