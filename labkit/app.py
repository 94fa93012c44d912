"""The `@lab` entrypoint: Hydra composition with strict keys, the life of a run, and exit codes.

    @lab("diffusion", Config)
    def train(cfg: Config, run: Run) -> None: ...

    if __name__ == "__main__":
        train()

Exit codes: 0 finished, 1 failed, 2 bad usage, 130 interrupted (resumable).
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar

from labkit import config, device, paths
from labkit.config import LabConfig, Request
from labkit.console import fail, say
from labkit.errors import Interrupted, ProbeDone, RunFailed, UsageError

if TYPE_CHECKING:
    from labkit.run import Run, StepProbe

C = TypeVar("C", bound=LabConfig)

SHOW_FLAGS = ("--cfg", "-c", "--package", "-p", "--info", "-i", "--resolve", "--hydra-help")
"""Flags passed on to Hydra as they are; they show something and run nothing."""

LOCK = "run.lock"


class Entrypoint(Generic[C]):
    """A week's `train`: called without arguments it is the command line."""

    def __init__(
        self,
        week: str,
        config_class: type[C],
        function: Callable[[C, Run], None],
        backend: str,
        needs_gpu: bool,
        distributed: bool,
    ) -> None:
        self.week, self.config_class, self.function = week, config_class, function
        self.backend, self.needs_gpu, self.distributed = backend, needs_gpu, distributed
        self.__doc__ = function.__doc__
        self.exit_code = 0

    def __call__(self) -> NoReturn:
        """Run the command line of this process and exit with its code."""
        sys.exit(self.main(sys.argv[1:]))

    def main(self, argv: Sequence[str]) -> int:
        """Carry out a command line (without the program's name); returns the exit code."""
        try:
            return self._main(list(argv))
        except UsageError as error:
            fail(str(error))
            return 2
        except KeyboardInterrupt:
            fail("interrupted")
            return 130

    def _main(self, argv: list[str]) -> int:
        flags, words = split_flags(argv, self.week)
        if "--help" in flags or "-h" in flags:
            print(config.help_text(self.week, self.config_class))
            return 0
        resume = [word for word in words if word.lstrip("+").startswith("resume=")]
        if resume:
            rest = [word for word in words if word not in resume]
            return self._resume(resume[-1].partition("=")[2], rest, "-m" in flags)
        words = config.normalise(self.week, self.config_class, words)
        multirun = "-m" in flags or "--multirun" in flags
        own = [word for word in words if not word.startswith(("hydra.", "hydra/"))]
        requests = [self.compose(run) for run in (config.expand(own) if multirun else [own])]
        if any(flag in SHOW_FLAGS for flag in flags):
            self._hydra([*flags, *words])
            return 0
        self._check_processes()
        return self._start(requests, words, multirun)

    def compose(self, words: Sequence[str]) -> Request:
        """The checked config for command-line words. Raises UsageError."""
        return config.compose(self.week, self.config_class, words)

    # --- starting -----------------------------------------------------------------------------------

    def _start(self, requests: list[Request], words: list[str], multirun: bool) -> int:
        size = requests[0].size
        parent = paths.runs() / self.week / size
        name = device.broadcast(new_name())
        writable(parent)
        places = {
            "hydra.run.dir": str(parent / name),
            "hydra.sweep.dir": str(parent),
            "hydra.sweep.subdir": f"{name}-${{hydra.job.num}}",
        }
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.job.chdir=false"]
        if device.rank() != 0:
            quiet.append("hydra.output_subdir=null")
        quoted = [f"{key}={value!r}" for key, value in places.items()]
        self._hydra([*(["-m"] if multirun else []), *words, *quoted, *quiet], multirun)
        return self.exit_code

    def _hydra(self, argv: list[str], multirun: bool = False) -> None:
        """Hand over to hydra.main, whose sweepers and launchers then work as everywhere."""
        import hydra

        def task(composed: Any) -> float | None:
            from hydra.core.hydra_config import HydraConfig

            settings = HydraConfig.get()
            choices = {
                g: settings.runtime.choices[g]
                for g in config.GROUPS
                if g in settings.runtime.choices
            }
            from omegaconf import OmegaConf

            cfg = config.instantiate(
                self.config_class, OmegaConf.to_container(composed, resolve=True)
            )  # type: ignore[arg-type]
            code, headline = self.execute(cfg, Path(settings.runtime.output_dir), choices)
            self.exit_code = max(self.exit_code, code)
            if code == 130 and multirun:
                raise SystemExit(code)
            return headline if headline is not None or not multirun else float("nan")

        config.register(self.week, self.config_class)
        sys.argv = [f"python -m {self.week}.train", *argv]
        hydra.main(
            version_base="1.3", config_path=str(paths.CONFIGS / self.week), config_name="config"
        )(task)()

    def _check_processes(self) -> None:
        if device.world_size() > 1 and not self.distributed:
            raise UsageError(
                f"week {self.week} runs in one process; start it without torchrun: python -m {self.week}.train ..."
            )

    # --- resuming -----------------------------------------------------------------------------------

    def _resume(self, where: str, words: list[str], multirun: bool) -> int:
        """`resume=latest` or `resume=<run folder>`: the saved config, the same folder, from the last checkpoint."""
        if multirun:
            raise UsageError("resume= continues one run; leave out -m")
        self._check_processes()
        folder = self.find(where, words)
        values, choices = config.saved(folder)
        asked = self.compose(words)
        changed = {}
        names = {item.name for item in fields(self.config_class)}
        for word in asked.overrides:
            key = word.lstrip("+").partition("=")[0]
            if key in config.GROUPS:
                if asked.choices[key] != choices.get(key):
                    changed[key] = (choices.get(key, "none"), asked.choices[key])
            elif key in names:
                new = getattr(asked.config, key)
                if key in config.RESUMABLE_CHANGES:
                    values[key] = new
                elif values.get(key) != new:
                    changed[key] = (values.get(key), new)
        if changed:
            raise UsageError(
                f"a resumed run keeps its own config, but {folder} has "
                + ", ".join(f"{key}={old} (asked: {new})" for key, (old, new) in changed.items())
                + f".\nType: python -m {self.week}.train resume={where}   or leave out resume= to start a new run."
            )
        unknown = sorted(set(values) ^ names)
        if unknown:
            raise UsageError(
                f"{folder} was made by other code: settings {', '.join(unknown)} exist only then or only now"
            )
        cfg = config.instantiate(self.config_class, values)
        with locked(folder):
            code, _ = self.execute(cfg, folder, choices, resumed=True)
        return code

    def find(self, where: str, words: Sequence[str] = ()) -> Path:
        """The run folder that `latest` (of the size asked for, if any) or a path means. Raises UsageError."""
        if where != "latest":
            folder = Path(where).expanduser().resolve()
            if not (folder / ".hydra" / "config.yaml").is_file():
                raise UsageError(
                    f"resume={where} is not a run folder (no .hydra/config.yaml in it); see {paths.runs() / self.week}"
                )
            return folder
        size = next((w.partition("=")[2] for w in words if w.lstrip("+").startswith("size=")), "*")
        found = [p.parent for p in (paths.runs() / self.week).glob(f"{size}/*/.hydra")]
        if not found:
            raise UsageError(
                f"there is no run of {self.week} to resume below {paths.runs() / self.week}; start one: python -m {self.week}.train +size=tiny"
            )
        return max(found, key=lambda p: p.name)

    # --- the life of a run --------------------------------------------------------------------------

    def execute(
        self,
        cfg: C,
        folder: Path,
        choices: dict[str, str],
        resumed: bool = False,
        probe: StepProbe | None = None,
    ) -> tuple[int, float | None]:
        """One run from first to last; returns exit code and headline metric. Never raises for a run's own faults."""
        from labkit import progress, results

        run, headline = None, None
        size, experiment = choices.get("size", "full"), choices.get("experiment")
        ended, code = "failed", 1
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            if resumed and (finished := finished_record(folder)):
                raise UsageError(
                    f"{folder} has finished ({finished}); there is nothing to resume. Start a new run without resume=."
                )
            if self.backend == "numpy" and cfg.device not in ("auto", "cpu"):
                raise UsageError(
                    f"device={cfg.device}: week {self.week} computes in NumPy, on the CPU; leave device= out"
                )
            if self.backend == "torch":
                import torch  # noqa: F401  (loaded before Run seeds it)

                device.resolve(cfg.device)
                if probe is None:
                    self._refuse_full_size_without_gpu(cfg, size)
            from labkit.run import Run

            folder.mkdir(parents=True, exist_ok=True)
            run = Run(self.week, cfg, folder, size, experiment, self.backend, resumed, probe)
            self.function(cfg, run)
            headline = headline_of(self.week, run.metrics)
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
            fail(f"{error}. Go on with:\n  python -m {self.week}.train resume={show_path(folder)}")
            ended, code = "interrupted", 130
        except KeyboardInterrupt:
            fail(
                f"interrupted. Go on from the last checkpoint, if there is one, with:\n  python -m {self.week}.train resume={show_path(folder)}"
            )
            ended, code = "interrupted", 130
        except OSError as error:
            fail(f"{type(error).__name__}: {error}. Earlier results and checkpoints are untouched.")
        except Exception:
            import traceback

            traceback.print_exc()
            fail(f"the run failed; its files are in {show_path(folder)}")
        finally:
            signal.signal(signal.SIGTERM, before)
        if run is None or (code == 2 and not run.began_steps and not resumed):
            if not resumed and device.rank() == 0:
                shutil.rmtree(folder, ignore_errors=True)
            return code, None
        run.close()
        if not run.is_main:
            return code, None
        record = run.record(ended)
        try:
            results.write_json(folder / "result.json", record)
            if ended == "finished" and cfg.max_steps is None:
                results.write_json(
                    paths.results() / self.week / f"{size}-{folder.name}.json", record
                )
                progress.refresh(paths.home())
        except OSError as error:
            fail(
                f"the result could not be written: {error}. Free some space, then type: python -m {self.week}.train resume={show_path(folder)}"
            )
            return 1, None
        if ended == "finished":
            say(summary(record, folder))
        return code, headline if ended == "finished" else None

    def _refuse_full_size_without_gpu(self, cfg: C, size: str) -> None:
        if (
            size == "full"
            and self.needs_gpu
            and cfg.device == "auto"
            and device.accelerator() is None
        ):
            raise UsageError(
                "the full-size run needs a GPU and there is none here.\n"
                f"  On this machine:  python -m {self.week}.train +size=tiny\n"
                f"  What it would cost on a rented GPU:  lab plan {self.week}\n"
                f"  To run it on the CPU all the same, for as long as it takes:  python -m {self.week}.train device=cpu"
            )


def lab(
    week: str,
    config_class: type[C],
    *,
    backend: Literal["torch", "numpy"] = "torch",
    needs_gpu: bool | None = None,
    distributed: bool = False,
) -> Callable[[Callable[[C, Run], None]], Entrypoint[C]]:
    """Make `train(cfg, run)` the entrypoint of a week.

    Args:
        week: name of the package; its settings are in configs/<week>/.
        config_class: dataclass of the settings, with full-size defaults and a docstring under each field.
        backend: what the week computes with; NumPy weeks never load torch.
        needs_gpu: whether the full size is refused on a machine without GPU (default: torch weeks are).
        distributed: whether the week may be started by torchrun in several processes.
    """

    def decorate(function: Callable[[C, Run], None]) -> Entrypoint[C]:
        gpu = backend == "torch" if needs_gpu is None else needs_gpu
        return Entrypoint(week, config_class, function, backend, gpu, distributed)

    return decorate


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


def probe(week: str, words: Sequence[str], step_probe: StepProbe) -> None:
    """Run a week's loop under a probe until it has seen enough; leaves nothing behind (`lab plan`).

    Raises UsageError for bad overrides, RunFailed when the loop ended or failed before the probe was done.
    """
    import tempfile

    entry = entrypoint(week)
    request = entry.compose(words)
    with tempfile.TemporaryDirectory() as folder:
        try:
            code, _ = entry.execute(
                request.config, Path(folder) / "probe", request.choices, probe=step_probe
            )
        except ProbeDone:
            return
    raise RunFailed(f"the loop of {week} ended (exit {code}) before it could be measured")


def split_flags(argv: Sequence[str], week: str) -> tuple[list[str], list[str]]:
    """Separate flags, with the values that some take, from key=value words. Raises UsageError for an unknown flag."""
    flags, words = [], []
    takes_value = False
    for word in argv:
        if takes_value and not word.startswith("-") and "=" not in word:
            flags.append(word)
            takes_value = False
        elif word.startswith("-"):
            name = word.split("=")[0]
            if name not in ("-h", "--help", "-m", "--multirun", *SHOW_FLAGS):
                bare = word.lstrip("-")
                raise UsageError(
                    f"unknown option {word}: settings are written without dashes, e.g. {bare if '=' in bare else bare + '=...'}\nAll settings: python -m {week}.train --help"
                )
            flags.append(word)
            takes_value = name in ("--cfg", "-c", "--package", "-p", "--info", "-i")
        else:
            words.append(word)
    return flags, words


def new_name() -> str:
    """A folder name that sorts by time and is unique even among runs started in the same second."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"


def writable(folder: Path) -> None:
    """Raises UsageError when `folder` cannot be made and written to."""
    trial = folder / f".{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UsageError(
            f"runs are written to {folder}, which cannot be done: {error.strerror or error}.\nSet LAB_HOME to a folder that you can write to."
        ) from error


def locked(folder: Path) -> Any:
    """A lock on a run folder, so that two processes do not resume the same run. Raises UsageError when taken."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"{folder} is being resumed by another process") from error
    return lock


def finished_record(folder: Path) -> str | None:
    """When the run in `folder` has finished: a word on it, else None."""
    from labkit import results

    try:
        record = results.read(folder / "result.json")
    except ValueError:
        return None
    return f"{record['steps']} steps" if record["ended"] == "finished" else None


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM outside the step loop ends a run the way Ctrl-C does."""
    raise KeyboardInterrupt


def headline_of(week: str, metrics: dict[str, float] | None) -> float:
    """The metric that a sweep returns: the first of the curriculum's metrics for the week that was reported.

    Raises RunFailed when there is none: a run without its headline number is not a finished run.
    """
    from labkit import curriculum

    if not metrics:
        raise RunFailed(
            "the run ended without reporting its metrics: run.result({...}) was never called"
        )
    unit = next((unit for unit in curriculum.load().units if unit.module == week), None)
    known = [metric.name for metric in unit.metrics] if unit else list(metrics)
    reported = [name for name in known if name in metrics]
    if not reported:
        raise RunFailed(f"none of the headline metrics of {week} ({', '.join(known)}) was reported")
    return metrics[reported[0]]


def show_path(folder: Path) -> str:
    """A path as one would type it from here."""
    try:
        return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)
    except ValueError:
        return str(folder)


def summary(record: dict[str, Any], folder: Path) -> str:
    """What a person reads at the end of a run."""
    lines = [
        f"\n{record['week']} {record['size']}: finished {record['steps']} steps in {record['train_seconds']:.1f} s of training"
    ]
    lines += [f"  {name:<24} {value:.6g}" for name, value in record["metrics"].items()]
    for band in record["bands"]:
        lines.append(
            f"  band: {band['metric']} {band['band']}: {'met' if band['met'] else 'NOT met'}"
        )
    if not record["bands"] and record["data"]:
        lines.append(
            f"  (no band is stated for {record['size']} on {record['data']['name']} with these settings)"
        )
    return "\n".join([*lines, f"  files: {show_path(folder)}"])
