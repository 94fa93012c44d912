"""A track as stages: what comes next, and what a run remembers of those that are finished.

    pretrain -> tune -> align -> quantise -> serve -> tools -> judge

A stage is a number of steps and what comes out of them: a folder, and metrics. All steps of all
stages are the steps of one run, so one checkpoint is enough for the whole track: it holds the
metrics of finished stages and the state of the stage that is being done. A run that is resumed goes
on inside that stage, and does no finished one again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from labkit import RunFailed, UsageError, exercise, files
from labkit.state.tracked import get_state, set_state

FACTS = "stage.json"
"""In a finished stage's folder: its metrics and seconds."""
RECORD = "record.json"
"""There, too, where a week's own run was used: that run's record."""


@exercise(minutes=20)
def order(needs: Mapping[str, Sequence[str]], finished: Collection[str] = ()) -> list[str]:
    """The stages that are still to be done, each after everything that it needs.

    Take again and again the first stage, in the order of `needs`, that has not been taken, is not
    finished, and whose needs are all taken or finished (Kahn 1962). A finished stage is never in
    the result.

    Args:
        needs: for each stage the names of the stages that it needs.
        finished: names of stages that are done, in any order.
    Returns:
        Names, in the order in which they are to be done; empty when nothing is left.
    Raises:
        ValueError when a stage needs one that is not in `needs`, when `finished` has a name that is
        not in `needs` (the message contains the unknown name), and when stages need each other in
        a circle.
    """
    for name in (*(each for group in needs.values() for each in group), *finished):
        if name not in needs:
            raise ValueError(f"there is no stage {name!r}; there are {', '.join(needs)}")
    done, found = set(finished), list[str]()
    while left := [name for name in needs if name not in done]:
        ready = [name for name in left if done.issuperset(needs[name])]
        if not ready:
            raise ValueError(f"these stages need each other in a circle: {', '.join(left)}")
        found.append(ready[0])
        done.add(ready[0])
    return found


class Session(Protocol):
    """A stage that is being done."""

    @property
    def tracked(self) -> Mapping[str, Any]:
        """What a checkpoint must hold, as for `run.track`."""
        ...

    def step(self, number: int) -> dict[str, Any]:
        """One step, from 0 on; what is to be logged."""
        ...

    def finish(self, folder: Path) -> dict[str, float]:
        """Fill the stage's folder; its metrics."""
        ...


class Once:
    """A session of one step, without state: a function from a folder to metrics."""

    tracked: Mapping[str, Any] = {}

    def __init__(self, work: Callable[[Path], dict[str, float]]) -> None:
        self.work = work

    def step(self, number: int) -> dict[str, Any]:
        """Nothing: all is done at the end."""
        return {}

    def finish(self, folder: Path) -> dict[str, float]:
        """What the function returns."""
        return self.work(folder)


@dataclass(frozen=True)
class Claim:
    """A metric of a stage, and the band that it must meet: that of the week which the stage uses,
    or the capstone's own."""

    metric: str
    week: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Stage:
    """One stage of a track."""

    name: str
    needs: tuple[str, ...]
    open: Callable[[], Session]
    """Makes the session, from the folders of the stages that it needs."""
    steps: int = 1
    does: str = ""
    """In a line, for the report."""
    claims: tuple[Claim, ...] = ()


@dataclass
class Chain:
    """The stages of a track and how far they are; to be tracked by the run."""

    stages: Sequence[Stage]
    home: Path
    """Each stage's folder is `home/<name>`; it appears when the stage is finished."""
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics of finished stages."""
    session: Session | None = None
    stage: Stage | None = None
    done: int = 0
    """Steps of the stage that are done."""
    began: float = 0.0

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def left(self) -> list[str]:
        """Names of the stages that are not finished, in order."""
        return order({stage.name: stage.needs for stage in self.stages}, self.results)

    @property
    def tracked(self) -> Mapping[str, Any]:
        """What the stage that is being done tracks."""
        return self.session.tracked if self.session else {}

    def step(self) -> dict[str, Any]:
        """The next step of all: opens a stage, and finishes it after its last step.

        Returns:
            What the stage logs, each key with the stage's name in front.
        Raises:
            UsageError and RunFailed as the stage does, with its name and what is kept.
        """
        if self.stage is None:
            self._open(self.left[0])
        assert self.stage is not None
        assert self.session is not None
        stage = self.stage
        log: dict[str, Any] = {}
        try:
            if self.done < stage.steps:  # all are done where a run failed in finishing the stage
                log = self.session.step(self.done)
                self.done += 1
            if self.done == stage.steps:
                self._finish(stage, self.session)
        except (UsageError, RunFailed) as error:
            raise self._failed(stage.name, error) from error
        return {f"{stage.name}/{key}": value for key, value in log.items()}

    def _failed(self, name: str, error: Exception) -> Exception:
        kept = ", ".join(self.results) or "none"
        return type(error)(
            f"stage {name}: {error}\nFinished stages are kept: {kept}. When this is repaired, "
            f"resume= goes on with {name}."
        )

    def _open(self, name: str) -> None:
        self.stage = next(stage for stage in self.stages if stage.name == name)
        self.done, self.began = 0, time.perf_counter()
        try:
            self.session = self.stage.open()
        except (UsageError, RunFailed) as error:
            self.stage = None
            raise self._failed(name, error) from error

    def _finish(self, stage: Stage, session: Session) -> None:
        """A folder appears whole or not at all: a run that is killed here finds none."""
        partial, folder = self.home / f".{stage.name}", self.home / stage.name
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        metrics = {key: float(value) for key, value in session.finish(partial).items()}
        seconds = time.perf_counter() - self.began
        files.write_json(partial / FACTS, {"metrics": metrics, "seconds": seconds})
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        self.results[stage.name] = metrics
        self.stage = self.session = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run must know."""
        return {
            "results": {name: dict(metrics) for name, metrics in self.results.items()},
            "stage": self.stage.name if self.stage else "",
            "done": self.done,
            "session": {key: get_state(thing) for key, thing in self.tracked.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where a run was. Raises ValueError for the state of another track."""
        self.results.clear()
        self.results |= {name: dict(metrics) for name, metrics in state["results"].items()}
        self.stage = self.session = None
        _ = self.left  # names of other code are refused
        if state["stage"]:
            if state["stage"] not in self.left:
                raise ValueError(f"there is no stage {state['stage']!r} to go on with")
            self._open(state["stage"])
            assert self.session is not None
            for key, thing in self.session.tracked.items():
                set_state(thing, state["session"][key], key)
        self.done = state["done"]


def facts(home: Path) -> dict[str, dict[str, Any]]:
    """What finished stages left in the folder `home`: metrics and seconds, by their names."""
    found = sorted(home.glob(f"*/{FACTS}"), key=lambda file: file.stat().st_mtime_ns)
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in found}
