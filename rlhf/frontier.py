"""Reward against KL for all methods in one plot, from the runs that are there.

python -m rlhf.frontier size=tiny
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import UsageError, paths
from labkit.config.words import read_words
from labkit.run import folders

USAGE = """\
Reward against KL to the reference, a line for each method, from the newest run of each.

usage: python -m rlhf.frontier [size=tiny] [data=replies] [out=frontier.png]

  size=tiny        the size of the runs
  data=replies     the set that they were trained on
  out=             file to write; frontier-<size>.png in the folder of the runs if left out
"""


@dataclass
class Options:
    """The settings of the command, as text."""

    size: str = "tiny"
    data: str = "replies"
    out: str = ""


def newest(place: Path, data: str) -> dict[str, list[dict[str, float]]]:
    """The points of the newest finished run of each method on `data`, below a folder of runs."""
    found: dict[str, list[dict[str, float]]] = {}
    runs = [file.parent for file in place.glob("*/frontier.json")]
    for folder in folders.newest_first(runs):
        try:
            record: dict[str, Any] = json.loads((folder / "result.json").read_text())
            kept = json.loads((folder / "frontier.json").read_text())
        except (OSError, ValueError):  # a run that did not finish
            continue
        broken = (record.get("experiment") or "").startswith("broken_")
        right = record["ended"] == "finished" and record["data"]["name"] == data
        if right and not broken and kept["points"]:
            found.setdefault(kept["method"], kept["points"])
    return dict(sorted(found.items()))


def draw(options: Options) -> Path:
    """Write the plot; returns the file. Raises UsageError when there is no run to draw."""
    place = paths.runs() / "rlhf" / options.size
    curves = newest(place, options.data)
    if not curves:
        raise UsageError(
            f"no finished run of rlhf on data={options.data} is in {place}; train one:\n"
            f"    python -m rlhf.train +size={options.size} data={options.data}"
        )
    from labkit.show.pictures import save_figure
    from rlhf.figures import frontier

    best_of_n = curves.pop("best of n", [])
    path = Path(options.out) if options.out else place.parent / f"frontier-{options.size}.png"
    try:
        save_figure(path, frontier(curves, best_of_n))
    except (OSError, ValueError) as error:
        raise UsageError(f"out={path} cannot be written: {error}") from error
    return path


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        print(f"wrote {draw(read_words(Options, words, 'size=tiny'))}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
