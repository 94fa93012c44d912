"""The life of one run: what may prevent its start, how it ends, what it writes."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labkit import course, files, paths
from labkit.config.schema import LabConfig
from labkit.errors import Interrupted, ProbeDone, RunFailed, UsageError, advice
from labkit.machine import device, ranks
from labkit.machine.signals import terminate_like_interrupt
from labkit.records import curves
from labkit.run import artifacts, broken, ending, folders, observer
from labkit.run.program import Program
from labkit.run.run import Run
from labkit.show.console import fail, say, warn

Told = Callable[[], None]
"""What is called when a run has finished and its record is in results/."""


@dataclass(frozen=True)
class Start:
    """What one run is started with.

    `choices` are the config groups chosen (size, experiment, debug), and `files` what `.hydra/` is
    to hold, so that the run can be resumed.
    """

    cfg: LabConfig
    folder: Path
    choices: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    resumed: bool = False

    @property
    def size(self) -> str:
        return self.choices.get("size", "full")


def execute(program: Program, start: Start, told: Told) -> tuple[int, float | None]:
    """One run from first to last: exit code, and the headline metric if it finished.

    The folder is locked for as long as the run lasts. A run's own errors are printed and recorded,
    never raised. Raises ProbeDone when an observer has seen enough.
    """
    with contextlib.ExitStack() as stack:
        try:
            course.load()  # a fault in it is to be found now, not after training
            start.folder.mkdir(parents=True, exist_ok=True)
            if ranks.rank() == 0 and not observer.watched():
                stack.enter_context(folders.locked(start.folder))
                _write_config(start.folder, start.files)
            if start.cfg.bug is not None:
                broken.make_copy(program, start.cfg.bug, start.folder)
        except (UsageError, OSError) as error:
            fail((isinstance(error, OSError) and advice(error)) or str(error))
            if not start.resumed:
                shutil.rmtree(start.folder, ignore_errors=True)
            return 2 if isinstance(error, UsageError) else 1, None
        code, headline = _execute(program, start, told)
    if code == 2 and [path.name for path in start.folder.glob("*")] == [folders.LOCK]:
        shutil.rmtree(start.folder, ignore_errors=True)  # Windows could not while it was held
    return code, headline


def _write_config(folder: Path, files: Mapping[str, str]) -> None:
    """Fill `.hydra/`; config.yaml, by which a run folder is known, comes last."""
    for name in sorted(files, key="config.yaml".__eq__):
        place = folder / ".hydra" / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(files[name], encoding="utf-8")


def _execute(program: Program, start: Start, told: Told) -> tuple[int, float | None]:
    run, headline = None, None
    command = ending.resume_command(program.week, start.folder)
    ended, code = "failed", 1
    with terminate_like_interrupt():  # the step loop handles it itself, and saves
        try:
            run = _start(program, start)
            _train(program, start, run)
            headline = ending.headline_of(program.week, run.metrics)
            ended, code = "finished", 0
        except ProbeDone:
            if run is not None:
                run.close()
            raise
        except UsageError as error:
            fail(str(error))
            code = 2
        except RunFailed as error:
            fail(str(error))
        except Interrupted as error:
            fail(f"{error}. Resume with:\n  {command}")
            ended, code = "interrupted", 130
        except KeyboardInterrupt:
            fail(
                f"interrupted. Resume from the last checkpoint, if there is one, with:\n  {command}"
            )
            ended, code = "interrupted", 130
        except OSError as error:
            fail(
                f"{advice(error) or f'{type(error).__name__}: {error}.'}\n"
                f"Earlier results and checkpoints are untouched. Resume with:\n  {command}"
            )
        except Exception:
            import traceback

            traceback.print_exc()
            fail(f"the run failed; its files are in {ending.show_path(start.folder)}")
    if run is None or (code == 2 and not run.began_steps and not start.resumed):
        if run is not None:
            run.close()
        if not start.resumed and ranks.rank() == 0:
            shutil.rmtree(start.folder, ignore_errors=True)
        return code, None
    run.close()
    _leave_process_group()
    if run.is_main and not _write_record(run, ended, told):
        return 1, None
    return code, headline


def _train(program: Program, start: Start, run: Run) -> None:
    if start.cfg.bug is None:
        program.train(start.cfg, run)
        return
    with broken.trained_by_copy(program, start.folder) as train:
        train(start.cfg, run)
    say(broken.where(start.folder, program.week, start.choices.get("experiment")))


def _start(program: Program, start: Start) -> Run:
    """Refuse what cannot be run here (UsageError), then make the Run."""
    if start.resumed and folders.has_finished(start.folder):
        raise UsageError(
            f"{start.folder} has finished; there is nothing to resume. "
            "Start a new run without resume=."
        )
    if program.backend == "numpy" and start.cfg.device not in ("auto", "cpu"):
        raise UsageError(
            f"device={start.cfg.device}: week {program.week} computes in NumPy, on the CPU; "
            "leave device= out"
        )
    if program.backend == "torch":
        import torch  # noqa: F401  (loaded before Run seeds it)

        device.resolve(start.cfg.device)
        asks_full = start.size == "full" and start.cfg.device == "auto"
        if asks_full and program.needs_gpu and not observer.watched():
            _refuse_without_accelerator(program.week)
    experiment = start.choices.get("experiment")
    return Run(
        program.week, start.cfg, start.folder, start.size, experiment, program.backend,
        start.resumed,
    )  # fmt: skip


def _refuse_without_accelerator(week: str) -> None:
    if device.accelerator() is None:
        raise UsageError(
            "the full-size run needs a GPU and there is none here.\n"
            f"  On this machine:                    python -m {week}.train +size=tiny\n"
            f"  What it would cost on a rented GPU: lab plan {week}\n"
            f"  On the CPU, for as long as it takes: python -m {week}.train device=cpu"
        )


def _write_record(run: Run, ended: str, told: Told) -> bool:
    """Write the record, into results/ first if the run finished. On failure: message, False.

    What was published goes to its place with the record. An error of a listener is a warning and
    does not fail the run.
    """
    record = run.record(ended)
    finished = ended == "finished"
    try:
        if finished and run.cfg.max_steps is None:
            artifacts.release(run, record)
            name = f"{run.size}-{run.dir.name}.json"
            folder = paths.results() / run.week
            files.write_json(folder / name, record)
            _write_curves(run, folder / curves.FOLDER / name)
            _tell(told)
        files.write_json(run.dir / "result.json", record)
    except OSError as error:
        fail(
            f"the result could not be written: {advice(error) or error}\nThen type:\n"
            f"  {ending.resume_command(run.week, run.dir)}"
        )
        return False
    if finished:
        say(ending.summary(record, run.dir))
    return True


def _write_curves(run: Run, file: Path) -> None:
    """The record stands without its curves: no fault in them fails a run."""
    try:
        curves.write(file, run.curves())
    except (OSError, ValueError, TypeError, KeyError) as error:
        warn(f"the result is recorded, but its curves are not: {error}")


def _tell(told: Told) -> None:
    try:
        told()
    except Exception as error:
        warn(
            f"the result is recorded, but the tables could not be refreshed: {error}\n"
            "Then type: python -m labkit.progress"
        )


def _leave_process_group() -> None:
    """Under torchrun, let the other processes know that this one is done."""
    if ranks.world_size() > 1 and "torch.distributed" in sys.modules:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
