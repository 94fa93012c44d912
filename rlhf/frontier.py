"""Reward against KL for all methods in one plot, from the runs that are there.

python -m rlhf.frontier size=tiny
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import UsageError, paths
from labkit.config.words import read_words
from labkit.run import folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


Points = Sequence[Mapping[str, float]]
"""Looks at one policy during training: `kl`, `gold` and perhaps `proxy` of each."""


def picture(curves: Mapping[str, Points], bound: Points = ()) -> Figure:
    """Gold reward against the square root of KL, a line for each method.

    The axis is Gao et al.'s: in the square root of KL, best-of-n and RL are nearly straight at
    first. A dashed line is the proxy reward, in standard deviations, where a method has one.
    """
    from labkit.show.pictures import new_figure

    figure = new_figure(7.0, 4.5)
    axis = figure.subplots()
    for number, (name, points) in enumerate({**curves, "best of n": bound}.items()):
        ordered = sorted(points, key=lambda point: point["kl"]) if name == "best of n" else points
        kl = [max(point["kl"], 0.0) ** 0.5 for point in ordered]
        style: dict[str, Any] = {"color": f"C{number}", "marker": "o", "markersize": 3}
        if ordered and "gold" in ordered[0]:
            axis.plot(kl, [point["gold"] for point in ordered], label=name, **style)
        if ordered and "proxy" in ordered[0]:
            proxy = [point["proxy"] for point in ordered]
            axis.plot(kl, proxy, linestyle="--", alpha=0.6, label=f"{name}, proxy", **style)
    axis.set_xlabel("√KL to the reference (KL in nats)")
    axis.set_ylabel("reward")
    axis.legend(fontsize=8)
    return figure


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

    best_of_n = curves.pop("best of n", [])
    path = Path(options.out) if options.out else place.parent / f"frontier-{options.size}.png"
    try:
        save_figure(path, picture(curves, best_of_n))
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
