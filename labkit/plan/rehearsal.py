"""The rehearsing process: a few steps of a run as it is, its checkpoint, and what was counted.

    python -m labkit.plan.rehearsal PROGRAM LOOKS [overrides]      prints what was seen as JSON

For people: `lab plan WEEK --rehearse`. Nothing here depends on how fast this machine is. The steps
are the first one and some from all over the run, since a step may cost more in a later phase.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labkit.errors import RunFailed, UsageError
from labkit.machine import threads
from labkit.plan.counts import Counts, count_parameters, counting
from labkit.plan.live import Live
from labkit.plan.probe import watch
from labkit.plan.standin import hub
from labkit.run.steps import Steps
from labkit.show import console
from labkit.state import checkpoint, tracked


class Rehearsal:
    """Watches a run: takes the chosen steps, the last of them from a checkpoint that was read."""

    def __init__(self, folder: Path, looks: int) -> None:
        """Checkpoints are written below `folder`; `looks` steps are counted, each in the middle of
        its part of the run.
        """
        self._folder, self._looks = folder, looks
        self._steps: list[int] = []
        self._total = 0
        self._run: Steps | None = None
        self._tracked: Mapping[str, Any] = {}
        self._counts: list[Counts] = []
        self._live: Live | None = None
        self._stack = ExitStack()
        self._checkpoint_bytes = 0

    def begin(self, run: Steps, total: int, tracked: Mapping[str, Any]) -> None:
        """Everything is built and tracked."""
        self._run, self._total, self._tracked = run, total, tracked
        if "torch" in sys.modules and run.backend == "torch":
            self._live = Live()

    def chosen(self, first: int, total: int) -> Sequence[int]:
        """One step that allocates what optimizers need, and those that are counted. The very first
        step of a longer run is left out: there runs look at what the untrained network does.
        """
        middles = [(2 * i + 1) * total // (2 * self._looks) for i in range(self._looks)]
        begin = first + 1 if total - first > 2 * self._looks else first
        self._steps = sorted({begin, *(step for step in middles if step > begin)})
        return self._steps

    def before(self, step: int) -> None:
        """A step starts; the last one after the state was written to a file and read back."""
        if step == self._steps[-1]:
            self._restore(step)
        if self._live is not None:
            self._counts.append(Counts())
            self._stack.enter_context(self._live)
            self._stack.enter_context(counting(self._counts[-1]))

    def after(self, step: int) -> bool:
        """A step is over. Raises RunFailed when its loss is not finite."""
        self._stack.close()
        assert self._run is not None
        self._run._log.flush()
        return step == self._steps[-1]

    def _restore(self, step: int) -> None:
        state = {name: tracked.get_state(thing) for name, thing in self._tracked.items()}
        expected = checkpoint.size_of(state)
        file = checkpoint.save(self._folder, step, {"tracked": state})
        if file.stat().st_size < expected:
            raise RunFailed(f"the checkpoint is smaller than its {expected:,} bytes of tensors")
        self._checkpoint_bytes = file.stat().st_size
        read = checkpoint.load(file)["tracked"]
        file.unlink()
        for name, thing in self._tracked.items():
            tracked.set_state(thing, read[name], name)

    def result(self) -> dict[str, Any]:
        """What was seen, for one step. Raises RunFailed when the loop took no step."""
        if self._run is None or not self._steps:
            raise RunFailed("the loop took no step")
        counts = self._counts[1:] or self._counts
        data = self._run.data_record or {}
        sets = [entry for entry in (data, *data.get("also", [])) if entry]
        return {
            "steps": self._total,
            "parameters": count_parameters(self._tracked),
            "flops": _mean(counts, "flops"),
            "bytes": _mean(counts, "bytes"),
            "kernels": _mean(counts, "kernels"),
            "memory": 0 if self._live is None else self._live.peak,
            "forward": 0 if self._live is None else self._live.forward,
            "checkpoint": self._checkpoint_bytes,
            "precision": self._run.precision if self._live is not None else "NumPy",
            "data": [
                {"name": entry["requested"], "source": entry["source"]}
                for entry in sets
                if entry["source"] not in ("embedded", "generated")
            ],
        }


def _mean(counts: Sequence[Counts], name: str) -> float:
    return sum(getattr(one, name) for one in counts) / len(counts) if counts else 0.0


def main(program: str, looks: int, words: Sequence[str]) -> int:
    """Rehearse, and print what was seen as JSON on the last line; returns the exit code."""
    try:
        with tempfile.TemporaryDirectory() as folder, hub(Path(folder)):
            rehearsal = Rehearsal(Path(folder), looks)
            watch(program, list(words), rehearsal)
            print(json.dumps(rehearsal.result()), flush=True)
    except UsageError as error:
        console.fail(str(error))
        return 2
    except RunFailed as error:
        console.fail(str(error))
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m labkit.plan.rehearsal <program> <looks> [overrides]")
    threads.choose()
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
