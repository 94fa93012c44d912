"""The life of one run: what may stop it before it starts, how it ends, what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import paths
from labkit.config.config import LabConfig
from labkit.course import curriculum
from labkit.errors import Interrupted, ProbeDone, RunFailed, UsageError, advice
from labkit.machine import device
from labkit.machine.signals import terminate_like_interrupt
from labkit.run import folders
from labkit.show.console import fail, say, warn

if TYPE_CHECKING:
    from labkit.run.entry import Entrypoint
    from labkit.run.run import Run, StepProbe


def execute(
    entry: Entrypoint[Any],
    cfg: LabConfig,
    folder: Path,
    choices: dict[str, str],
    files: Mapping[str, str] | None = None,
    resumed: bool = False,
    probe: StepProbe | None = None,
) -> tuple[int, float | None]:
    """One run from first to last: exit code, and the headline metric if it finished.

    `files` are what `.hydra/` is to hold, so that the run can be resumed. The folder is locked for
    as long as the run lasts. A run's own faults are told to the person and recorded, never raised.
    Raises ProbeDone when a probe has seen enough.
    """
    with contextlib.ExitStack() as stack:
        try:
            curriculum.load()  # a fault in it is to be found now, not after training
            folder.mkdir(parents=True, exist_ok=True)
            if device.rank() == 0 and probe is None:
                stack.enter_context(folders.locked(folder))
                _write_config(folder, files or {})
        except (UsageError, OSError) as error:
            fail((isinstance(error, OSError) and advice(error)) or str(error))
            if not resumed:
                shutil.rmtree(folder, ignore_errors=True)
            return 2 if isinstance(error, UsageError) else 1, None
        return _execute(entry, cfg, folder, choices, resumed, probe)


def _write_config(folder: Path, files: Mapping[str, str]) -> None:
    """Fill `.hydra/`; config.yaml, by which a run folder is known, comes last."""
    for name in sorted(files, key="config.yaml".__eq__):
        place = folder / ".hydra" / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(files[name], encoding="utf-8")


def _execute(
    entry: Entrypoint[Any],
    cfg: LabConfig,
    folder: Path,
    choices: dict[str, str],
    resumed: bool,
    probe: StepProbe | None,
) -> tuple[int, float | None]:
    run, headline = None, None
    command = resume_command(entry.week, folder)
    ended, code = "failed", 1
    with terminate_like_interrupt():  # the step loop has a gentler way
        try:
            run = _start(entry, cfg, folder, choices, resumed, probe)
            entry.function(cfg, run)
            headline = headline_of(entry.week, run.metrics)
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
            fail(f"{error}. Go on with:\n  {command}")
            ended, code = "interrupted", 130
        except KeyboardInterrupt:
            fail(
                f"interrupted. Go on from the last checkpoint, if there is one, with:\n  {command}"
            )
            ended, code = "interrupted", 130
        except OSError as error:
            fail(
                f"{advice(error) or f'{type(error).__name__}: {error}.'}\n"
                f"Earlier results and checkpoints are untouched; go on with:\n  {command}"
            )
        except Exception:
            import traceback

            traceback.print_exc()
            fail(f"the run failed; its files are in {show_path(folder)}")
    if run is None or (code == 2 and not run.began_steps and not resumed):
        if run is not None:
            run.close()
        if not resumed and device.rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        return code, None
    run.close()
    _leave_process_group()
    if run.is_main and not _write_record(run, ended):
        return 1, None
    return code, headline


def _start(
    entry: Entrypoint[Any],
    cfg: LabConfig,
    folder: Path,
    choices: dict[str, str],
    resumed: bool,
    probe: StepProbe | None,
) -> Run:
    """Refuse what cannot be run here (UsageError), then make the Run."""
    size = choices.get("size", "full")
    if resumed and folders.has_finished(folder):
        raise UsageError(
            f"{folder} has finished; there is nothing to resume. Start a new run without resume=."
        )
    if entry.backend == "numpy" and cfg.device not in ("auto", "cpu"):
        raise UsageError(
            f"device={cfg.device}: week {entry.week} computes in NumPy, on the CPU; "
            "leave device= out"
        )
    if entry.backend == "torch":
        import torch  # noqa: F401  (loaded before Run seeds it)

        device.resolve(cfg.device)
        if size == "full" and entry.needs_gpu and cfg.device == "auto" and probe is None:
            _refuse_without_accelerator(entry.week)
    from labkit.run.run import Run

    experiment = choices.get("experiment")
    return Run(entry.week, cfg, folder, size, experiment, entry.backend, resumed, probe)


def _refuse_without_accelerator(week: str) -> None:
    if device.accelerator() is None:
        raise UsageError(
            "the full-size run needs a GPU and there is none here.\n"
            f"  On this machine:                    python -m {week}.train +size=tiny\n"
            f"  What it would cost on a rented GPU: lab plan {week}\n"
            f"  On the CPU, for as long as it takes: python -m {week}.train device=cpu"
        )


def _write_record(run: Run, ended: str) -> bool:
    """Write the record, into results/ first if the run finished. On failure: message, False.

    What was published goes to its place with the record. That the tables cannot be refreshed, for
    whatever reason, is no fault of this run.
    """
    from labkit.records import store
    from labkit.run import artifacts

    record = run.record(ended)
    finished = ended == "finished"
    try:
        if finished and run.cfg.max_steps is None:
            artifacts.release(run, record)
            name = f"{run.size}-{run.dir.name}.json"
            store.write_json(paths.results() / run.week / name, record)
            _refresh_tables()
        store.write_json(run.dir / "result.json", record)
    except OSError as error:
        fail(
            f"the result could not be written: {advice(error) or error}\nThen type:\n"
            f"  {resume_command(run.week, run.dir)}"
        )
        return False
    if finished:
        say(summary(record, run.dir))
    return True


def _refresh_tables() -> None:
    from labkit.report import progress

    try:
        progress.refresh(paths.home())
    except Exception as error:
        warn(
            f"the result is recorded, but the tables could not be refreshed: {error}\n"
            "Then type: python -m labkit.progress"
        )


def _leave_process_group() -> None:
    """Under torchrun, let the other processes know that this one is done."""
    if device.world_size() > 1 and "torch.distributed" in sys.modules:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def headline_of(week: str, metrics: dict[str, float] | None) -> float:
    """The metric that a sweep returns: the first of the curriculum's metrics for the week that was
    reported.

    Raises RunFailed when there is none: a run without its headline number is not a finished run.
    """
    if not metrics:
        raise RunFailed("the run ended without its metrics: run.result({...}) was never called")
    unit = next((unit for unit in curriculum.load().units if unit.module == week), None)
    known = [metric.name for metric in unit.metrics] if unit else list(metrics)
    reported = [name for name in known if name in metrics]
    if not reported:
        raise RunFailed(f"none of the headline metrics of {week} ({', '.join(known)}) was reported")
    return metrics[reported[0]]


def resume_command(week: str, folder: Path | str) -> str:
    """What to type to go on with a run, fit for a shell."""
    where = show_path(folder) if isinstance(folder, Path) else folder
    return f"python -m {week}.train {shlex.quote(f'resume={where}')}"


def show_path(folder: Path) -> str:
    """A path as one would type it from here."""
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)


def summary(record: dict[str, Any], folder: Path) -> str:
    """What a person reads at the end of a run."""
    title = f"{record['week']} {record['size']}"
    seconds = record["train_seconds"]
    lines = [f"\n{title}: finished {record['steps']} steps in {seconds:.1f} s of training"]
    lines += [f"  {name:<24} {value:.6g}" for name, value in record["metrics"].items()]
    for band in record["bands"]:
        met = "met" if band["met"] else "NOT met"
        several = f" (one of {band['seeds']} seeds needed)" if band["seeds"] > 1 else ""
        lines.append(f"  band: {band['metric']} {band['text']}: {met}{several}")
    return "\n".join([*lines, f"  files: {show_path(folder)}"])
