"""The `@lab` entrypoint: a week's `train` is its command line.

    @lab("diffusion", Config)
    def train(cfg: Config, run: Run) -> None: ...

    if __name__ == "__main__":
        train()

Exit codes: 0 finished, 1 failed, 2 bad usage, 130 interrupted (resumable).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from labkit.config import compose, help, sweep
from labkit.config.schema import LabConfig, Request
from labkit.errors import UsageError, advice
from labkit.machine import address, ranks, threads
from labkit.run import several
from labkit.run.errand import Errand, words_there
from labkit.run.program import Backend, Program
from labkit.run.words import SHOW_FLAGS, split_flags
from labkit.show.console import fail, outlived

if TYPE_CHECKING:
    from labkit.run.life import Told
    from labkit.run.run import Run

C = TypeVar("C", bound=LabConfig)


class Entrypoint(Generic[C]):
    """A week's `train`: called without arguments it is the command line."""

    def __init__(self, program: Program, told: Told) -> None:
        """`told` is called when a run has finished, see `labkit.run.life`."""
        self.program, self.told = program, told
        self.__doc__ = program.train.__doc__

    def __call__(self) -> NoReturn:
        """Run the command line of this process and exit with its code."""
        threads.choose()  # before anything loads OpenMP, which reads it once
        sys.exit(self.main(sys.argv[1:]))

    def main(self, argv: Sequence[str]) -> int:
        """Carry out a command line (without the program's name); returns the exit code."""
        with outlived():
            try:
                return self._main(list(argv))
            except UsageError as error:
                fail(str(error))
                return 2
            except OSError as error:
                if (text := advice(error)) is None:
                    raise
                fail(text)
                return 1
            except KeyboardInterrupt:
                fail("interrupted")
                return 130

    def _main(self, argv: list[str]) -> int:
        week, config = self.program.week, self.program.config
        flags, words = split_flags(argv, week)
        if "--help" in flags or "-h" in flags:
            print(help.help_text(week, config))
            return 0
        words = [address.quoted(word) for word in words]
        multirun = "-m" in flags or "--multirun" in flags
        resume = [word for word in words if word.lstrip("+").startswith("resume=")]
        if resume:
            rest = [word for word in words if word not in resume]
            return self._resume(resume[-1].partition("=")[2], rest, multirun)
        words = compose.normalise(week, config, words)
        requests = [self.compose(run) for run in (sweep.expand(words) if multirun else [words])]
        from labkit.run import launch  # a mistyped option is answered before anything heavy loads

        if any(flag.split("=")[0] in SHOW_FLAGS for flag in flags):
            launch.show(self.program, [*flags, *words])
            return 0
        first = requests[0].config
        sizes = {request.size for request in requests}
        if (rented := _one_place(requests)) is not None:
            sent = (*(["-m"] if multirun else []), *words_there(words))
            return _elsewhere(Errand(self.program, rented, first, "full" in sizes, sent))
        self._check_processes()
        if several.wanted(self.program, first.processes, multirun):
            return several.launch(self.program, first.processes, words)
        return launch.launch(self.program, sizes, words, multirun, self.told)

    def compose(self, words: Sequence[str]) -> Request:
        """The checked config for command-line words. Raises UsageError."""
        return compose.compose(self.program.week, self.program.config, words)

    def _resume(self, where: str, words: list[str], multirun: bool) -> int:
        if multirun:
            raise UsageError("resume= continues one run; leave out -m")
        self._check_processes()
        from labkit.run.life import execute
        from labkit.run.resume import resumed

        start = resumed(self.program, where, words)
        if (rented := address.parse(start.cfg.device)) is not None:
            full, sent = start.size == "full", tuple(words_there(words))
            return _elsewhere(Errand(self.program, rented, start.cfg, full, sent, start.folder))
        if several.wanted(self.program, start.cfg.processes):
            words = [*words, f"resume={start.folder}"]
            return several.launch(self.program, start.cfg.processes, words)
        code, _ = execute(self.program, start, self.told)
        return code

    def _check_processes(self) -> None:
        if ranks.world_size() > 1 and not self.program.distributed:
            week = self.program.week
            raise UsageError(
                f"week {week} runs in one process; start it without torchrun: "
                f"python -m {week}.train ..."
            )


def lab(
    week: str,
    config_class: type[C],
    *,
    backend: Backend = "torch",
    needs_gpu: bool | None = None,
    distributed: bool = False,
) -> Callable[[Callable[[C, Run], None]], Entrypoint[C]]:
    """Make `train(cfg, run)` the entrypoint of a week.

    Args:
        week: name of the package; its settings are in configs/<week>/.
        config_class: dataclass of the settings, with full-size defaults and a docstring under each
            field.
        backend: what the week computes with; NumPy weeks never load torch.
        needs_gpu: whether the full size is refused on a machine without GPU (default: torch weeks
            are).
        distributed: whether the week may be started by torchrun in several processes.
    """

    def decorate(function: Callable[[C, Run], None]) -> Entrypoint[C]:
        gpu = backend == "torch" if needs_gpu is None else needs_gpu
        program = Program(week, config_class, function, backend, gpu, distributed)
        return Entrypoint(program, when_finished)

    return decorate


def _one_place(requests: Sequence[Request]) -> address.Address | None:
    """The rented machine that all runs are for; None when they are for this one.

    Raises UsageError for a sweep over machines.
    """
    places = {request.config.device for request in requests}
    rented = {place for place in places if address.parse(place) is not None}
    if rented and len(places) > 1:
        raise UsageError(f"one device= for all runs of a sweep; got {', '.join(sorted(places))}")
    return address.parse(rented.pop()) if rented else None


def _elsewhere(errand: Errand) -> int:
    assert elsewhere, "labkit sets it"
    return elsewhere[0](errand)


elsewhere: list[Callable[[Errand], int]] = []
"""Makes a run on a rented machine and returns its exit code. `labkit` sets it: `labkit.remote` is
above this room."""


def when_finished() -> None:
    """What is done when a run has finished: all that `listeners` has."""
    for listener in listeners:
        listener()


listeners: list[Callable[[], Any]] = []
"""Called after each finished run, when its record is in results/. `labkit` adds the
refresh of PROGRESS.md."""


def entrypoint(week: str) -> Entrypoint[Any]:
    """The entrypoint of a week by its package name. Raises UsageError when it has none yet."""
    try:
        found = importlib.import_module(f"{week}.train").train
    except ModuleNotFoundError as error:
        if error.name in (week, f"{week}.train"):
            raise UsageError(f"week {week} is not built yet; `lab list` shows which are") from error
        raise
    assert isinstance(found, Entrypoint)
    return found
