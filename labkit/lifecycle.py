"""The life of one run: what may stop it before it starts, how it ends, what it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from labkit import device, paths
from labkit.config import LabConfig
from labkit.console import fail, say
from labkit.errors import Interrupted, ProbeDone, RunFailed, UsageError

if TYPE_CHECKING:
    from labkit.app import Entrypoint
    from labkit.run import Run, StepProbe


def execute(
    entry: Entrypoint[Any],
    cfg: LabConfig,
    folder: Path,
    choices: dict[str, str],
    resumed: bool = False,
    probe: StepProbe | None = None,
) -> tuple[int, float | None]:
    """One run from first to last: exit code, and the headline metric if it finished.

    A run's own faults are told to the person and recorded, never raised. Raises ProbeDone when a
    probe has seen enough.
    """
    run, headline = None, None
    command = f"python -m {entry.week}.train resume={show_path(folder)}"
    ended, code = "failed", 1
    with _terminate_like_interrupt():
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
            fail(f"{type(error).__name__}: {error}. Earlier results and checkpoints are untouched.")
        except Exception:
            import traceback

            traceback.print_exc()
            fail(f"the run failed; its files are in {show_path(folder)}")
    if run is None or (code == 2 and not run.began_steps and not resumed):
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
    if resumed and has_finished(folder):
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
    from labkit.run import Run

    folder.mkdir(parents=True, exist_ok=True)
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
    """Write the record, into results/ first if the run finished. On failure: message, False."""
    from labkit import progress, results

    record = run.record(ended)
    try:
        if ended == "finished" and run.cfg.max_steps is None:
            name = f"{run.size}-{run.dir.name}.json"
            results.write_json(paths.results() / run.week / name, record)
            progress.refresh(paths.home())
        results.write_json(run.dir / "result.json", record)
    except OSError as error:
        fail(
            f"the result could not be written: {error}. Free some space, then type:\n"
            f"  python -m {run.week}.train resume={show_path(run.dir)}"
        )
        return False
    if ended == "finished":
        say(summary(record, run.dir))
    return True


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """Outside the step loop, which has a gentler way, SIGTERM ends a run as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    from labkit import curriculum

    if not metrics:
        raise RunFailed("the run ended without its metrics: run.result({...}) was never called")
    unit = next((unit for unit in curriculum.load().units if unit.module == week), None)
    known = [metric.name for metric in unit.metrics] if unit else list(metrics)
    reported = [name for name in known if name in metrics]
    if not reported:
        raise RunFailed(f"none of the headline metrics of {week} ({', '.join(known)}) was reported")
    return metrics[reported[0]]


def has_finished(folder: Path) -> bool:
    """Whether the run in `folder` came to its end."""
    from labkit import results

    try:
        return bool(results.read(folder / "result.json")["ended"] == "finished")
    except ValueError:
        return False


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
