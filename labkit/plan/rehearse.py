"""`lab plan WEEK --rehearse`: a few steps of the full size on this CPU, with every shape as it is.

It shows that the full size starts, that its checkpoint can be read back, and what a step needs; and
it keeps the counts in configs/<program>/full.json, from which the sheets tell hours and dollars.

A batch that takes too long here is made smaller: `--scale batch_size --of 16` rehearses 1/16 and
2/16 of it, and draws the line through both. Widths, depths and lengths stay as they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from labkit import course, paths
from labkit.config import fields
from labkit.errors import RunFailed, UsageError
from labkit.plan import full
from labkit.plan.full import Full, How
from labkit.run import entry
from labkit.show.console import say

Point = tuple[float, Mapping[str, Any]]
"""The share of the batch that was rehearsed, and what was seen of one step."""


def rehearse(week: str, how: How | None = None) -> int:
    """Rehearse, keep the counts and print them; as last time when `how` is None.

    Raises UsageError for what the week refuses, RunFailed when the full size does not run.
    """
    program = course.program(week)
    known = full.read(program) if full.path_of(program).is_file() else None
    how = how or (known.how if known else How())
    found = measure(program, how)
    file = full.write(program, found)
    say(f"wrote {file.relative_to(paths.ROOT) if file.is_relative_to(paths.ROOT) else file}")
    say(f"{found.steps:,} steps; tensors of {found.memory_mb / 1000:.2f} GB at the peak of a step;")
    say(f"the checkpoint has {found.checkpoint_mb:,.0f} MB and was read back")
    say("Then type: lab progress --sheets")
    return 0


def measure(program: str, how: How) -> Full:
    """What a rehearsal shows of the full size. Raises as `rehearse` does."""
    if any(word.lstrip("+").startswith("size=") for word in how.words):
        raise UsageError("the full size is what is rehearsed: leave size= out")
    entrypoint = entry.entrypoint(program)
    asked = fields.flat(entrypoint.compose([]).config)
    whole = fields.flat(entrypoint.compose(list(how.words)).config)
    unknown = [name for name in how.scale if not isinstance(whole.get(name), int)]
    if unknown:
        raise UsageError(
            f"--scale {unknown[0]}: {program} has no such whole number to make smaller; "
            f"where the full size takes all there is, say how much: {unknown[0]}=100000"
        )
    fixed = ["device=cpu", *how.words]
    if asked["precision"] == "auto":
        fixed.append("precision=bf16")  # as on a card that has it
    points: list[Point] = []
    for numerator in (1, 2) if how.scale else (how.of,):
        smaller = {n: max(1, round(whole[n] * numerator / how.of)) for n in how.scale}
        share = smaller[how.scale[0]] / whole[how.scale[0]] if how.scale else 1.0
        words = [*fixed, *(f"{name}={value}" for name, value in smaller.items())]
        say(f"rehearsing {' '.join([program, *words])} ...")
        points.append((share, _process(program, 2 if how.scale else 4, words)))
    seen = at_full(points, how.parts)
    names = [entry["name"] for entry in seen["data"]]
    base = asked.get("base")
    if isinstance(base, str) and base in ("gpt2",):
        names.append(f"{base} from the Hugging Face hub")
    return Full(
        config={name: value for name, value in asked.items() if not full.is_free(name)},
        gpu=entrypoint.program.needs_gpu,
        how=how,
        steps=seen["steps"],
        parameters=seen["parameters"],
        flops=_digits(seen["flops"], 4),
        bytes=_digits(seen["bytes"], 4),
        kernels=_digits(seen["kernels"], 4),
        memory_mb=_digits(seen["memory"] / 1e6, 3),
        checkpoint_mb=_digits(seen["checkpoint"] / 1e6, 3),
        data=tuple(dict.fromkeys(names)),
    )


def at_full(points: Sequence[Point], parts: int = 1) -> dict[str, Any]:
    """What was seen, at the whole batch: on the line through two points, or the only one's.

    Raises RunFailed where twice the batch did not need more: rows of unequal length can do that.
    """
    share, seen = points[-1]
    found = dict(seen)
    if len(points) == 2:
        first, less = points[0]
        if less["flops"] and seen["flops"] <= less["flops"]:
            raise RunFailed(
                f"twice the batch took {seen['flops']:.3g} FLOPs and the batch itself "
                f"{less['flops']:.3g}: no line through them to the whole batch; try a smaller --of"
            )

        def on_line(name: str, at: float) -> float:
            slope = (seen[name] - less[name]) / (share - first)
            return max(0.0, float(seen[name] + slope * (at - share)))

        found |= {name: on_line(name, 1.0) for name in ("flops", "bytes", "forward")}
        # What grows is on a line; the smaller batch may have had its peak elsewhere.
        found["memory"] = max(float(seen["memory"]), on_line("forward", 1 / parts))
        found["kernels"] = seen["kernels"] * parts
    return found


def _process(program: str, looks: int, words: Sequence[str]) -> Mapping[str, Any]:
    """What `python -m labkit.plan.rehearsal` prints. Raises UsageError, RunFailed."""
    command = [sys.executable, "-m", "labkit.plan.rehearsal", program, str(looks), *words]
    # Compiled graphs would hide their operations from the counters.
    env = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(
        command, cwd=paths.ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        said = f"the full size of {program} does not run: see above"
        raise (UsageError if done.returncode == 2 else RunFailed)(said)
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _digits(value: float, count: int) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{count - 1}e}")
